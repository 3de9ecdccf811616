"""The checks for plug-in authors: what keeps the contract passes, and each fault is named by its sentence."""

import pytest
import torch
from torch import Tensor, nn

from ssl_audio import encoders
from ssl_audio.encoders import CompactCNN, Encoder
from ssl_audio.frontends import (
    NORMALIZATIONS,
    DecibelMelSpectrogram,
    Frontend,
    KaldiFilterbank,
    LogMelSpectrogram,
    MelSpectrogram,
    Waveform,
)
from ssl_audio.heads import MLP, Identity, ProbeHead
from ssl_audio.methods import BYOL, CPC, Contrastive, NTXent, SimSiam, UniformityAlignment, VICReg
from ssl_audio.methods.supervised import Supervised
from ssl_audio.testing import check_encoder, check_frontend, check_method

MEL = (16000, 512, 256, 20)  # rate, n_fft, hop, bands
PREDICTOR = {"predictor": lambda dim: MLP(dim, [8, dim])}


class Mean(Encoder):
    """Keeps the contract: mean over time, one linear layer."""

    def __init__(self, dim: int = 6) -> None:
        super().__init__()
        self.dim = dim
        self.net = nn.Linear(20, dim)

    def forward(self, features: Tensor) -> Tensor:
        return self.net(features.mean(dim=2))


class WrongDim(Mean):
    def forward(self, features):
        return super().forward(features)[:, 1:]


class NoDim(Mean):
    def __init__(self) -> None:
        super().__init__()
        self.dim = None


class BatchScaled(Mean):
    def forward(self, features):
        return super().forward(features / features.abs().max())


class Noisy(Mean):
    def forward(self, features):
        return super().forward(features) + torch.rand(1)


class NeedsTwenty(Mean):
    def forward(self, features):
        if features.shape[2] < 20:
            raise RuntimeError("the kernel is larger than the input")
        return super().forward(features)


class DividesBySilence(Mean):
    def forward(self, features):
        features = features - features.amin(dim=(1, 2), keepdim=True)
        return super().forward(features / features.amax(dim=(1, 2), keepdim=True))


class Forgets(Mean):
    def __init__(self, width: int = 6) -> None:
        super().__init__(width)


class ChangesArgument(Mean):
    def __init__(self, dim: int = 6) -> None:
        super().__init__(dim)
        self.dim = dim
        self.extra = nn.Linear(dim, dim)
        self.dim = dim + 1  # what is stored is not what came in

    def forward(self, features):
        return nn.functional.pad(self.extra(super().forward(features)), (0, 1))


class HiddenState(Mean):
    def __init__(self, dim: int = 6) -> None:
        super().__init__(dim)
        self.offset = torch.rand(dim)  # no buffer, so not in the state dict

    def forward(self, features):
        return super().forward(features) + self.offset


class Unused(Mean):
    def __init__(self, dim: int = 6) -> None:
        super().__init__(dim)
        self.spare = nn.Linear(2, 2)


class RootOfZero(Mean):
    def forward(self, features):
        return super().forward(features) + (self.net.weight * 0).sum().sqrt()


class WrongFrames(Mean):
    frame_dim = 3

    def frames(self, features):
        return features.transpose(1, 2)


def test_what_keeps_the_contract_passes_and_stays_as_it_is():
    encoder = Mean().train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    check_encoder(encoder, LogMelSpectrogram(*MEL))
    assert encoder.training and all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


@pytest.mark.parametrize(
    "kind, sentence",
    [
        (WrongDim, r"WrongDim of 3 clips of 16000 samples gives \(3, 5\); its dim promises \(3, 6\)"),
        (NoDim, "NoDim.dim is None; set it to the size of the embedding"),
        (BatchScaled, "embedding of BatchScaled depends on the other clips in the batch"),
        (Noisy, "Noisy gives two embeddings for one clip in evaluation mode"),
        (NeedsTwenty, "NeedsTwenty fails at its minimum_frames of 1; raise it: the kernel is larger"),
        (DividesBySilence, "DividesBySilence gives embeddings of silence that are not finite"),
        (Forgets, "Forgets cannot be saved: Forgets does not store its argument 'width'"),
        (ChangesArgument, "ChangesArgument made again from its description has another state dict"),
        (HiddenState, "HiddenState made again from its description, with the same state dict, gives other values"),
        (Unused, "Unused has parameters that get no gradient: spare.weight, spare.bias"),
        (RootOfZero, "RootOfZero has parameters whose gradient is not finite: net.weight"),
        (WrongFrames, r"WrongFrames.frames gives \(3, 63, 20\); expected \(3, frames, frame_dim 3\)"),
    ],
)
def test_each_fault_of_an_encoder_is_named(kind, sentence):
    with pytest.raises(AssertionError, match=sentence) as error:
        check_encoder(kind(), LogMelSpectrogram(*MEL))
    assert "\n" not in str(error.value)


def test_a_class_that_cannot_be_imported_is_named():
    class Local(Mean):
        pass

    with pytest.raises(AssertionError, match=r"Local cannot be made again .* define the class in a module"):
        check_encoder(Local(), LogMelSpectrogram(*MEL))


@pytest.mark.parametrize(
    "frontend",
    [
        MelSpectrogram(*MEL),
        *(LogMelSpectrogram(*MEL, normalize=kind) for kind in NORMALIZATIONS),
        DecibelMelSpectrogram(*MEL),
        DecibelMelSpectrogram(*MEL, scale=False),
        KaldiFilterbank(),
        Waveform(),
    ],
)
def test_our_frontends_keep_their_contract(frontend):
    check_frontend(frontend)


class Squared(Frontend):
    """Frames of 100 samples, their energies: keeps the contract."""

    minimum_samples = 100

    def samples_for(self, frames: int) -> int:
        return 100 * frames

    def forward(self, waveforms):
        samples = waveforms.shape[1] // 100 * 100
        return waveforms[:, :samples].unflatten(1, (-1, 100)).square().transpose(1, 2)


class TooFewSamples(Squared):
    def samples_for(self, frames: int) -> int:
        return 100 + frames


class BatchNormalised(Squared):
    def forward(self, waveforms):
        return super().forward(waveforms / (waveforms.std() + 1e-5))


class Detached(Squared):
    def forward(self, waveforms):
        return super().forward(waveforms.detach()) + 0 * waveforms.sum().detach().requires_grad_()


class LogOfSilence(Squared):
    def forward(self, waveforms):
        return super().forward(waveforms).log()


class Transposed(Squared):
    def forward(self, waveforms):
        return super().forward(waveforms).transpose(1, 2)


class TooShort(Squared):
    minimum_samples = 50

    def forward(self, waveforms):
        if waveforms.shape[1] < 100:
            raise ValueError("no frame")
        return super().forward(waveforms)


@pytest.mark.parametrize(
    "kind, sentence",
    [
        (TooFewSamples, r"TooFewSamples.samples_for\(2\) is 102, which is too short"),
        (BatchNormalised, "feature of BatchNormalised depends on the other clips"),
        (Detached, "Detached passes no finite gradient on to the waveform"),
        (LogOfSilence, "LogOfSilence gives features of silence that are not finite"),
        (Transposed, "only the last size may change with the length"),
        (TooShort, "TooShort fails at its minimum_samples of 50; raise it: no frame"),
    ],
)
def test_each_fault_of_a_frontend_is_named(kind, sentence):
    check_frontend(Squared())
    with pytest.raises(AssertionError, match=sentence) as error:
        check_frontend(kind())
    assert "\n" not in str(error.value)


def network(encoder=None):
    return {
        "frontend": LogMelSpectrogram(*MEL),
        "encoder": encoder or CompactCNN([4, 8], embedding_dim=6),
        "projection": lambda dim: MLP(dim, [8, 8]),
        "sample_rate": 8000,
    }


@pytest.mark.parametrize(
    "kind, arguments",
    [
        (Contrastive, {}),
        (Contrastive, {"variance_weight": 1.0, "covariance_weight": 1.0}),
        (NTXent, {}),
        (UniformityAlignment, {}),
        (VICReg, {}),
        (BYOL, PREDICTOR),
        (SimSiam, PREDICTOR),
    ],
)
def test_our_methods_keep_their_contract(kind, arguments):
    check_method(kind(**network(), **arguments))


def test_a_method_with_labels_keeps_the_contract():
    method = Supervised(**{**network(), "projection": None})
    method.projection = ProbeHead(6, ["a", "b"])  # `setup` makes it, from the classes of the data
    check_method(method)


def test_a_method_on_frames_keeps_the_contract():
    encoder = encoders.CPC(8, heads=2, feedforward=16)
    check_method(CPC(3, 5, frontend=Waveform(), encoder=encoder, projection=Identity, sample_rate=16000))


class NoLoss(NTXent):
    def loss(self, z1, z2):
        return {"loss": (z1 - z2).square().mean(dim=0)}


class RandomOutsideTorch(NTXent):
    def loss(self, z1, z2):
        generator = torch.Generator()
        generator.seed()
        return {"loss": super().loss(z1, z2)["loss"] * torch.rand(1, generator=generator).squeeze()}


class Diverges(NTXent):
    def loss(self, z1, z2):
        return {"loss": super().loss(z1, z2)["loss"].log() * torch.inf}


class SavesNothing(NTXent):
    def on_save_checkpoint(self, checkpoint):
        pass


class SkipsProjection(NTXent):
    def project(self, clip1, clip2):
        (e1, e2), _ = super().project(clip1, clip2)
        return (e1, e2), (e1, e2)


@pytest.mark.parametrize(
    "kind, sentence",
    [
        (NoLoss, r"gives a loss of shape \(8,\); it must be one number"),
        (RandomOutsideTorch, "a training step of RandomOutsideTorch on 4 pairs of 8000 samples repeated gives another"),
        (Diverges, "a training step of Diverges .* gives the loss .*inf; it must be finite"),
        (SavesNothing, "SavesNothing.on_save_checkpoint keeps no 'model'"),
        (SkipsProjection, "SkipsProjection has parameters that get no gradient: projection.net.0.weight"),
    ],
)
def test_each_fault_of_a_method_is_named(kind, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_method(kind(**network()))


def test_an_encoder_that_cannot_be_saved_is_named_by_the_check_of_its_method():
    with pytest.raises(AssertionError, match="NTXent cannot be saved: Forgets does not store its argument 'width'"):
        check_method(NTXent(**network(Forgets())))
