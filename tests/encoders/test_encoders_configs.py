"""The stacks of the systems that this project took in, and every encoder under one method."""

import pytest
import torch

from ssl_audio.training.cli import TrainCLI
from ssl_audio.training.config import load_config
from ssl_audio.utils.packaged import packaged

# stack: (method, encoder, rate, samples, parameters of encoder, of projection and, where it has one, of predictor)
SYSTEMS = {
    "clmr": ("NTXent", "SampleCNN", 22050, 59049, 2_368_512, 294_912, None),
    "wav2rec": ("SimSiam", "ResNet50", 22050, 220500, 23_501_762, 9_449_728, 2_109_696),
    "cpc": ("CPC", "CPC", 16000, 20480, 5_251_072 + 3_158_528, 0, None),
    "wavebyol": ("BYOL", "WaveBYOL", 16000, 20480, 24_660_009, 20_987_904, 33_570_816),
}
ENCODERS = sorted(path.stem for path in packaged("train_configs").glob("encoder/*.yaml"))


def build(*stack: str) -> TrainCLI:
    overrides = [("data.dataset_dirs", '["nowhere"]'), ("trainer.accelerator", "cpu")]
    with torch.device("meta"):  # sizes, no weights
        return TrainCLI(load_config(stack, overrides), [])


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_stack_of_a_system_has_its_parts_sizes_and_rate(name):
    method, encoder, rate, samples, *sizes = SYSTEMS[name]
    cli = build("common", name, "data/folder")
    model, data = cli.model, cli.datamodule
    assert (type(model).__name__, type(model.encoder).__name__) == (method, encoder)
    assert (data.sample_rate, model.sample_rate, data.nr_samples) == (rate, rate, samples)
    assert data.items.augmentation is None  # no singing augmentation of single clips
    predictor = size(model.predictor) if hasattr(model, "predictor") else None
    assert [size(model.encoder), size(model.projection), predictor] == sizes
    assert samples >= model.embedding_model().minimum_samples


def test_simsiam_has_the_papers_heads():
    model = build("common", "simsiam", "encoder/resnet50").model
    d = 2048
    assert size(model.projection) == 3 * d * d + 2 * 2 * d  # three layers without bias, two with scale and shift
    assert size(model.predictor) == d * 512 + 2 * 512 + 512 * d + d
    assert not model.projection.net[-1].affine


@pytest.mark.parametrize("name", ENCODERS)
def test_any_encoder_stacks_on_a_method(name):
    model = build("common", "contrastive", f"encoder/{name}").model
    assert model.encoder.dim == model.projection.in_dim
