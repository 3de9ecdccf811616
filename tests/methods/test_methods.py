"""Each method's step: its values and gradients, over one process and over two, and what it hands on."""

import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml
from helpers import REPOSITORY
from torch import nn

from ssl_audio import encoders
from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.compact_cnn import CompactCNN
from ssl_audio.encoders.whitened import Whitened, Whitening
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram, Waveform
from ssl_audio.heads import MLP, DINOHead, Identity, ProbeHead, Projection
from ssl_audio.hub import save_model
from ssl_audio.methods import (
    BYOL,
    CPC,
    DINO,
    Contrastive,
    Distillation,
    Method,
    MoCo,
    NTXent,
    SimSiam,
    SogCLR,
    SupCon,
    UniformityAlignment,
    VICReg,
)
from ssl_audio.methods.distributed import rank
from ssl_audio.methods.supervised import Supervised
from ssl_audio.model import EmbeddingModel

SAMPLES = 32
CONFIGS = REPOSITORY / "train_configs"


class Plain(Encoder):
    """No batch-norm, so that a row's embedding does not depend on which process its neighbours are on."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = 12
        self.net = nn.Sequential(nn.Linear(SAMPLES, 24), nn.Tanh(), nn.Linear(24, self.dim))

    def forward(self, features):
        return self.net(features)


def predictor(dim):
    return MLP(dim, [10, dim])


def prototypes(dim):
    return DINOHead(dim, 16, [10], 6, batch_norm=False)


def cpc(**arguments):
    """Four frames of history and three steps, from few candidates, so that single draws matter."""
    encoder = {"context": "gru", **arguments.pop("encoder", {})}
    return {"steps": 3, "num_negatives": 5, "projection": Identity, "encoder": encoder, **arguments}


METHODS = {
    "contrastive": (Contrastive, {}),
    "contrastive-coupled": (Contrastive, {"decoupled": False, "num_negatives": 5}),
    "contrastive-vc": (Contrastive, {"variance_weight": 25.0, "covariance_weight": 100.0}),
    "nt-xent": (NTXent, {}),
    "contrastive-groups": (Contrastive, {}),
    "nt-xent-groups": (NTXent, {}),
    "sup-con": (SupCon, {}),
    "moco-groups": (MoCo, {"queue_size": 20}),
    "sogclr": (SogCLR, {}),
    "uniformity-alignment": (UniformityAlignment, {}),
    "vicreg": (VICReg, {"gamma": 1.0}),
    "vicreg-normalised": (VICReg, {}),
    "byol": (BYOL, {"predictor": predictor}),
    "wavebyol": (BYOL, {"predictor": predictor, "loss_scale": "distance"}),
    "simsiam": (SimSiam, {"predictor": predictor}),
    "wav2rec": (SimSiam, {"predictor": predictor, "loss_scale": "distance"}),
    "cpc": (CPC, cpc()),
    "cpc-transformer": (CPC, cpc(encoder={"context": "transformer"}, exclude_collisions=True)),
    "cpc-reverse": (CPC, cpc(encoder={"reverse": True}, scale_by_dim=False)),
    "cpc-within": (CPC, cpc(negatives_within=True)),
    "dino": (DINO, {"projection": prototypes}),
    "moco": (MoCo, {"queue_size": 20}),
    "moco-one-way": (MoCo, {"queue_size": 6, "symmetric": False}),
    "supervised": (Supervised, {"projection": None}),
    "distil": (Distillation, {"projection": None, "loss_weights": {"cosine": 1.0, "mse": 0.5}}),
    "distil-batch": (Distillation, {"projection": None, "loss_weights": {"contrastive": 1.0, "kl": 0.3}}),
}
GROUPED = ("contrastive-groups", "nt-xent-groups", "sup-con", "moco-groups")
MEANS_OVER_CLIPS = (
    "byol",
    "wavebyol",
    "simsiam",
    "wav2rec",
    "dino",
    "moco",
    "moco-one-way",
    "moco-groups",
    "supervised",
    "distil",
)


def make(name: str, encoder: Encoder | None = None, **changes) -> Method:
    torch.manual_seed(0)
    kind, arguments = METHODS[name]
    if kind is CPC:
        small = {"channels": 8, "heads": 2, "feedforward": 16, "dropout": 0.0}
        arguments = {**arguments, "encoder": encoders.CPC(**{**small, **arguments["encoder"]})}
    frontend, encoder = (Waveform(), Plain()) if encoder is None else (LogMelSpectrogram(n_mels=20), encoder)
    network = {"frontend": frontend, "encoder": encoder, "projection": lambda dim: Projection(dim, 8)}
    method = kind(**{**network, **arguments, **changes})
    if kind is Supervised:
        method.projection = ProbeHead(method.encoder.dim, ["a", "b", "c"])  # `setup` makes it, from the classes
    if isinstance(method, Distillation):
        method.make_heads([6, 4])  # `setup` makes them, from the tables of two teachers
    if isinstance(method, SogCLR):
        method.averages = torch.linspace(0.5, 2, 8).unsqueeze(1)  # `setup` makes room for the recordings
    return method


def clips_for(name: str):
    """(2, 8, samples) views on which the method can work."""
    return clips(samples=160 * 7 if METHODS[name][0] is CPC else SAMPLES)


def clips(seed: int = 0, batch: int = 8, samples: int = SAMPLES):
    return torch.randn(2, batch, samples, generator=torch.Generator().manual_seed(seed))


class Step(nn.Module):
    """What DistributedDataParallel wraps: clips in, loss out."""

    def __init__(self, method: Method, name: str) -> None:
        super().__init__()
        self.method = method
        self.grouped = name in GROUPED

    def forward(self, clip1, clip2):
        torch.manual_seed(1 + rank())  # as `on_train_batch_start` seeds: other numbers on each rank
        if isinstance(self.method, Supervised):
            targets = (4 * clip1[:, 0]).long().abs() % 3
            return self.method.training_step({"clip": clip1, "target": targets}, 0)["loss"]
        batch = {"clip1": clip1, "clip2": clip2, "targets": clip2[:, :10]}
        batch["index"] = torch.arange(len(clip1)) + rank() * len(clip1)
        if self.grouped:  # three groups, each on both ranks
            batch["group"] = torch.arange(rank() * len(clip1), (rank() + 1) * len(clip1)) % 3
        return self.method.batch_objective(batch).terms["loss"]


def gradients(method: Method) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def buffers(method: Method) -> dict[str, torch.Tensor]:
    """What a step leaves beside gradients: DINO's centre, MoCo's queue."""
    if isinstance(method, MoCo):
        method.enqueue()
    return {name: buffer.clone() for name, buffer in method.named_buffers()}


def half_of_a_step(name: str, process: int) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The mean loss, the gradients and the buffers of one of two processes.

    On return nothing holds the wrapper any more: its reducer would keep the process group alive, and freed after
    `destroy_process_group` it would wait for gloo's threads with the interpreter's lock held, which they may need.
    """
    method = make(name)
    step = nn.parallel.DistributedDataParallel(Step(method, name))
    half = clips_for(name).chunk(2, dim=1)[process]
    loss = step(*half)
    loss.backward()
    mean = loss.detach().clone()
    dist.all_reduce(mean)
    return mean / 2, gradients(method), buffers(method)


def two_process_worker(process: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "You are trying to `self.log")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=process, world_size=2)
    results = {name: half_of_a_step(name, process) for name in METHODS}
    if process == 0:
        torch.save(results, f"{folder}/results.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Loss and gradients of every method from one pair of processes."""
    folder = tmp_path_factory.mktemp("gloo")
    mp.start_processes(two_process_worker, (str(folder),), nprocs=2, start_method="spawn", daemon=True)
    return torch.load(folder / "results.pt", weights_only=True)


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_give_the_loss_and_gradients_of_one(name, two_processes):
    method = make(name)
    loss = Step(method, name)(*clips_for(name))
    loss.backward()
    theirs, their_gradients, their_buffers = two_processes[name]
    assert theirs.item() == pytest.approx(loss.item(), rel=1e-5)
    assert their_gradients.keys() == gradients(method).keys()
    for key, gradient in gradients(method).items():
        torch.testing.assert_close(their_gradients[key], gradient, rtol=1e-4, atol=1e-6, msg=f"{name}: {key}")
    torch.testing.assert_close(their_buffers, buffers(method), rtol=1e-4, atol=1e-6)


def test_every_method_that_has_a_config_is_among_them():
    named = [yaml.safe_load(path.read_text()).get("model", {}).get("class_path") for path in CONFIGS.glob("*.yaml")]
    compared = {f"{kind.__module__}.{kind.__qualname__}" for kind, _ in METHODS.values()}
    compared |= {f"ssl_audio.methods.{kind.__qualname__}" for kind, _ in METHODS.values()}
    assert len(set(filter(None, named))) >= 8 and set(filter(None, named)) <= compared


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_one_process_is_not_enough_for_that(name, two_processes):
    """The losses that compare clips would differ without the gather: the test above can fail."""
    local = sum(Step(make(name), name)(*half).item() for half in clips_for(name).chunk(2, dim=1)) / 2
    is_mean_over_clips = name in MEANS_OVER_CLIPS
    assert (local == pytest.approx(two_processes[name][0].item(), rel=1e-5)) == is_mean_over_clips


def test_contrastive_terms_add_up_to_the_loss():
    terms = make("contrastive-vc").objective(*clips()).terms
    total = terms["contrastive"] + 25 * terms["variance"] + 100 * terms["covariance"]
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-6)


def test_both_views_in_one_pass_equal_two_passes_where_batch_norm_is_fixed():
    method = make("contrastive", CompactCNN([4, 8], embedding_dim=12)).eval()
    clip1, clip2 = clips(samples=6000)
    (e1, e2), (z1, z2) = method.project(clip1, clip2)
    for clip, embedding, projection in ((clip1, e1, z1), (clip2, e2, z2)):
        torch.testing.assert_close(method(clip), embedding, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(method.projection(method(clip)), projection, rtol=1e-4, atol=1e-5)


def test_byol_target_is_the_moving_average_of_weights_and_batch_norm_statistics():
    method = make("byol", CompactCNN([4, 8], embedding_dim=12)).train()
    expected = {name: value.clone() for name, value in method.target["encoder"].state_dict().items()}
    for step in range(3):
        method.objective(*clips(step, samples=6000)).terms["loss"].backward()
        with torch.no_grad():
            for parameter in method.encoder.parameters():
                parameter.sub_(parameter.grad)
        method.move_target(0.9)
        for name, value in method.encoder.state_dict().items():
            if value.is_floating_point():
                expected[name] = 0.9 * expected[name] + 0.1 * value
    for name, value in method.target["encoder"].state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    statistics = method.target["encoder"].stages[0][1]
    assert not torch.equal(statistics.running_mean, torch.zeros(4))  # moved, and by nothing but the average


def test_byol_in_distances_is_the_papers_sum_over_both_directions():
    method = make("wavebyol").eval()
    clip1, clip2 = clips()
    with torch.no_grad():
        online = [method.predictor(method.projection(method(clip))) for clip in (clip1, clip2)]
        target = [method.target["projection"](method.target["encoder"](method.features(c))) for c in (clip1, clip2)]
    cosines = [torch.cosine_similarity(p, t).mean() for p, t in zip(online, reversed(target), strict=True)]
    torch.testing.assert_close(method.objective(clip1, clip2).terms["loss"], 4 - 2 * sum(cosines))


def test_byol_target_has_no_gradient_and_does_not_train():
    method = make("byol")
    method.objective(*clips()).terms["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in method.target.parameters())
    assert all(p.grad is not None for p in method.predictor.parameters())


def test_byol_compares_each_prediction_with_the_other_views_target():
    method = make("byol")
    clip1, clip2 = clips()
    z1, z2 = method.projection(method(clip1)), method.projection(method(clip2))  # target = online before any step
    p1, p2 = method.predictor(z1), method.predictor(z2)
    cosines = [nn.functional.cosine_similarity(p, z).mean() for p, z in ((p1, z2), (p2, z1))]
    expected = sum(2 - 2 * cosine for cosine in cosines) / 2 / 8
    assert method.objective(clip1, clip2).terms["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_parts_that_do_not_fit_are_named_before_training():
    with pytest.raises(InputError, match=r"data\.batch_size"):
        make("contrastive").check(1, SAMPLES)
    with pytest.raises(InputError, match="shape"):
        make("byol", predictor=lambda dim: MLP(dim, [5])).check(4, SAMPLES)
    with pytest.raises(InputError, match="too short"):
        make("contrastive", CompactCNN([4, 8])).check(4, 100)
    method = make("vicreg").train()
    method.check(4, SAMPLES)
    assert all(module.training for module in method.modules())


def test_a_slip_in_the_length_does_not_fill_the_memory(monkeypatch):
    method, seen = make("contrastive"), []
    monkeypatch.setattr(method, "objective", lambda *views: seen.append(views[0].shape))
    method.check(4, 10**12)
    assert seen[0][1] <= 1 << 20


def test_losses_stay_float32_under_autocast():
    method = make("vicreg", CompactCNN([4, 8], embedding_dim=12))
    with torch.autocast("cpu", torch.bfloat16):
        result = method.objective(*clips(samples=6000))
    assert result.terms["loss"].dtype == torch.float32
    assert {view.dtype for view in (*result.embeddings, *result.projections)} == {torch.float32}


def test_the_embedding_model_is_frontend_and_encoder_and_the_projection_if_asked():
    method = make("contrastive", CompactCNN([4, 8], embedding_dim=12)).eval()
    clip = clips(samples=6000)[0]
    assert torch.equal(method.embedding_model()(clip), method(clip))
    assert torch.equal(method.embedding_model(projection=True)(clip), method.projection(method(clip)))


class Pretrained:
    """A saved model, its name, and the keywords of a method that starts from it at the same rate."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(3)
        frontend = LogMelSpectrogram(8000, n_fft=256, hop_length=64, n_mels=20)
        self.model = EmbeddingModel(frontend, CompactCNN([4, 8], embedding_dim=12), 8000)
        with torch.no_grad():
            for _ in range(3):
                self.model(torch.randn(4, 4000))  # batch normalisation gets statistics of its own
        save_model(self.model.eval(), folder)
        self.arguments = {"weights": str(folder), "sample_rate": 8000}


@pytest.fixture
def pretrained(tmp_path: Path) -> Pretrained:
    return Pretrained(tmp_path / "start")


STARTED = {name: method for name, method in METHODS.items() if method[0] is not CPC}


@pytest.mark.parametrize("name", STARTED)
def test_every_method_starts_from_the_weights_of_a_saved_model(name: str, pretrained: Pretrained) -> None:
    method = make(name, CompactCNN([4, 8], embedding_dim=12), **pretrained.arguments)
    clip = torch.randn(2, 4000)
    assert method.encoder.training and method.frontend.training
    torch.testing.assert_close(method.eval()(clip), pretrained.model(clip))
    trained = method.student["encoder"] if isinstance(method, DINO) else method.encoder
    assert method.frontend.n_mels == 20 and all(p.requires_grad for p in trained.parameters())


def test_cpc_starts_from_a_saved_cpc(tmp_path: Path) -> None:
    saved = make("cpc").encoder
    save_model(EmbeddingModel(Waveform(), saved, 44100), tmp_path / "start")
    torch.manual_seed(1)
    arguments = {"frontend": Waveform(), "encoder": encoders.CPC(8)}
    method = CPC(steps=3, num_negatives=5, **arguments, weights=str(tmp_path / "start"))
    assert method.heads[0].in_features == saved.dim
    torch.testing.assert_close(method.encoder.state_dict(), saved.state_dict())


def test_the_target_of_byol_starts_from_the_weights_too(pretrained: Pretrained) -> None:
    method = make("byol", CompactCNN([4, 8], embedding_dim=12), **pretrained.arguments)
    expected = pretrained.model.encoder.state_dict()
    for name, value in method.target["encoder"].state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


def test_a_start_at_another_rate_or_that_is_no_model_is_one_line(pretrained: Pretrained, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"start takes audio at 8000 Hz; set data\.sample_rate to that"):
        make("contrastive", **{**pretrained.arguments, "sample_rate": 16000})
    with pytest.raises(InputError, match="no such file or folder"):
        make("contrastive", weights=str(tmp_path / "nothing" / "there"))


def test_a_start_that_cannot_be_trained_is_one_line() -> None:
    pytest.importorskip("onnxruntime")
    model = REPOSITORY / "tests" / "data" / "made_by_0_1" / "onnx" / "model.onnx"
    with pytest.raises(InputError, match=r"model\.onnx cannot be trained"):
        make("contrastive", weights=f"onnx:{model}", sample_rate=8000)


def test_a_whitened_start_is_trained_without_its_whitening(pretrained: Pretrained, tmp_path: Path) -> None:
    whitening = Whitening(12)
    whitening.fit([torch.randn(40, 12)])
    frontend, encoder = pretrained.model.frontend, pretrained.model.encoder
    save_model(EmbeddingModel(frontend, Whitened(encoder, whitening), 8000), tmp_path / "whitened")
    method = make("contrastive", weights=str(tmp_path / "whitened"), sample_rate=8000)
    clip = torch.randn(2, 4000)
    torch.testing.assert_close(method.eval()(clip), encoder(frontend(clip)))


def test_the_clips_of_a_batch_are_augmented_in_training_only_all_views_at_once() -> None:
    class Louder(nn.Module):
        def forward(self, clips: torch.Tensor, sample_rate: int, generator: torch.Generator) -> torch.Tensor:
            assert sample_rate == 44100
            self.rows = len(clips)
            return clips * torch.rand(len(clips), 1, generator=generator)

    for name, rows in (("contrastive", 16), ("cpc", 8), ("supervised", 8)):
        method = make(name, augmentation=Louder())
        batch = {key: clips_for(name)[0] for key in method.clip_keys}
        first, again = (method.augmented({**batch, "index": 0}, 3) for _ in range(2))
        assert method.augmentation.rows == rows and first["index"] == 0
        for key in method.clip_keys:
            assert torch.equal(first[key], again[key]) and not torch.equal(first[key], batch[key])
        if name == "contrastive":
            assert not torch.equal(first["clip1"], first["clip2"])
