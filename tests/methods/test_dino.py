"""DINO's step: who sees which crop, in which order things happen, and what is evaluated and saved."""

import copy
import math
import warnings

import pytest
import torch
from pytorch_lightning import Trainer
from test_methods import make
from torch import nn

from ssl_audio.callbacks import CollapseMonitor
from ssl_audio.data import AudioDataModule, WindowDataModule
from ssl_audio.encoders import CompactCNN
from ssl_audio.errors import InputError
from ssl_audio.heads import DINOHead, Projection
from ssl_audio.losses import dino_center, dino_loss

SAMPLES, SHORT, BATCH = 6000, 4000, 4


def crops(long: int = 2, short: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    kinds = [("clip", long, SAMPLES), ("local", short, SHORT)]
    return {f"{k}{i + 1}": torch.randn(BATCH, size, generator=generator) for k, n, size in kinds for i in range(n)}


def tiny(**changes):
    torch.manual_seed(1)  # the encoder is made before `make` seeds
    return make("dino", CompactCNN([4, 8], embedding_dim=12), **changes)


@pytest.mark.parametrize(("long", "short"), [(2, 3), (2, 0), (1, 2), (3, 1)])
def test_the_loss_is_that_of_each_crop_on_its_own(long, short):
    method = tiny().eval()  # batch-norm is fixed, so that crops may be passed one by one
    method.center += 0.1
    batch = crops(long, short)
    student = [method.student["projection"](method.student["encoder"](method.frontend(c))) for c in batch.values()]
    teacher = [method.projection(method(batch[f"clip{i + 1}"])) for i in range(long)]
    expected = dino_loss(torch.stack(student), torch.stack(teacher), method.center)
    result = method.batch_objective(batch)
    torch.testing.assert_close(result.terms["loss"], expected)
    assert len(result.embeddings) == len(result.projections) == long
    torch.testing.assert_close(result.embeddings[0], method(batch["clip1"]))


def test_the_centre_follows_the_teachers_raw_outputs_after_the_loss():
    method, batch = tiny().train(), crops()
    same = copy.deepcopy(method)
    with torch.no_grad():
        teacher = same.projection(same.encoder(same.features(torch.cat([batch["clip1"], batch["clip2"]]))))
    first = method.batch_objective(batch).terms["loss"]
    torch.testing.assert_close(method.center, dino_center(torch.zeros(16), teacher))
    without = tiny(center_momentum=1.0)
    torch.testing.assert_close(without.train().batch_objective(batch).terms["loss"], first)
    assert not without.center.any()
    method.eval().batch_objective(batch)
    torch.testing.assert_close(method.center, dino_center(torch.zeros(16), teacher))  # validation leaves it alone


def test_the_teacher_is_the_average_of_the_weights_and_keeps_its_own_statistics():
    method = tiny().train()
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter += 1.0
    before = {name: value.clone() for name, value in method.encoder.named_parameters()}
    method.batch_objective(crops())
    statistics = {name: value.clone() for name, value in method.encoder.named_buffers()}
    assert any(value.any() for name, value in statistics.items() if name.endswith("running_mean"))
    method.move_teacher(0.9)
    for name, value in method.encoder.named_parameters():
        torch.testing.assert_close(value, before[name] + 0.1, msg=name)
    torch.testing.assert_close(dict(method.encoder.named_buffers()), statistics)
    assert not any(p.requires_grad for p in [*method.encoder.parameters(), *method.projection.parameters()])


def test_gradients_are_clipped_for_each_tensor_and_prototypes_freeze_without_decay():
    method = tiny(optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1, weight_decay=0.5))
    optimizer = method.configure_optimizers()
    start = method.student["projection"].prototypes.clone()
    for parameter in method.student.parameters():
        parameter.grad = torch.full_like(parameter, 5.0)
    method.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    method.configure_gradient_clipping(optimizer, None, None)
    others = [p for p in method.student.parameters() if p is not method.student["projection"].prototypes]
    norms = torch.stack([parameter.grad.norm() for parameter in others if parameter.numel() > 1])
    torch.testing.assert_close(norms, torch.full_like(norms, 3.0), rtol=1e-4, atol=0)
    optimizer.step()
    assert torch.equal(method.student["projection"].prototypes, start)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    assert {parameter.ndim for parameter in optimizer.param_groups[1]["params"]} == {1}


def test_what_is_saved_is_the_teacher():
    method = tiny().eval()
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.zero_()
    clip = crops()["clip1"]
    assert method.embedding_model()(clip).abs().sum() > 0
    torch.testing.assert_close(method.embedding_model(projection=True)(clip), method.projection(method(clip)))


def test_augmentation_takes_all_crops_of_a_length_at_once():
    class Shape(nn.Module):
        seen: tuple = ()

        def forward(self, clips, sample_rate, generator):
            self.seen = (*self.seen, tuple(clips.shape))
            return clips + torch.rand(len(clips), 1, generator=generator)

    method, batch = tiny(augmentation=Shape()), crops()
    changed = method.augmented({**batch, "index": 7}, 0)
    assert method.augmentation.seen == ((2 * BATCH, SAMPLES), (3 * BATCH, SHORT)) and changed["index"] == 7
    assert all(not torch.equal(changed[name], batch[name]) for name in batch)


def test_what_cannot_work_is_said_before_training():
    with pytest.raises(InputError, match=r"Projection has no prototypes; set model\.projection"):
        tiny(projection=lambda dim: Projection(dim, 8))
    with pytest.raises(InputError, match=r"model\.teacher_temperature is 0; it must be above 0"):
        tiny(teacher_temperature=0)
    options = {"sample_rate": 44100, "nr_samples": SAMPLES}
    with pytest.raises(InputError, match=r"the data gives one; raise data\.views to 2"):
        tiny().check_data(AudioDataModule("nowhere", views=1, **options).batch_spec)
    with pytest.raises(InputError, match=r"short crop of 100 samples .* raise data\.nr_samples_local"):
        tiny().check_data(AudioDataModule("nowhere", local_views=1, nr_samples_local=100, **options).batch_spec)
    with pytest.raises(InputError, match=r"nr_samples_local is 7000; it must be from 1 to data\.nr_samples"):
        AudioDataModule("nowhere", local_views=1, nr_samples_local=7000, **options)
    for kind in (AudioDataModule, WindowDataModule):
        method = tiny()
        method.check_data(kind("nowhere", local_views=2, **options).batch_spec)
        method.check(4, SAMPLES)
        assert method.local_samples == SAMPLES // 2 and not method.center.any()


def voices(steps: int = 200):
    """Batches of crops of 20 centres, as 16 samples: a toy on which a guard shows what it is worth."""
    generator = torch.Generator().manual_seed(99)
    centres = torch.randn(20, 16, generator=generator)[torch.randint(20, (steps, 64), generator=generator)]
    noise = {"clip1": 0.5, "clip2": 0.5, "local1": 0.8, "local2": 0.8}
    crops = {name: centres + size * torch.randn(centres.shape, generator=generator) for name, size in noise.items()}
    return [{name: crop[step] for name, crop in crops.items()} for step in range(steps)]


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.parametrize(("temperature", "said"), [(0.04, ""), (1.0, "uniform over the 64 prototypes")])
def test_the_toy_learns_with_its_guards_and_the_monitor_says_when_the_teacher_is_not_sharp(temperature, said):
    method = toy(teacher_temperature=temperature)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[CollapseMonitor(every_n_steps=10, after_steps=100, min_effective_rank=0, max_mean_cosine=1.1)],
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(method, torch.utils.data.DataLoader(voices(), batch_size=None))
    messages = " ".join(str(warning.message) for warning in caught)
    assert (said in messages) if said else ("prototype" not in messages)
    terms = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if said:
        assert terms["loss/train_step"] == pytest.approx(math.log(64), abs=0.01)
    else:
        assert terms["loss/train_step"] < 2.5 and terms["mean_teacher_entropy/train_step"] > 1.5


def test_the_monitor_says_once_when_all_clips_get_one_prototype():
    monitor = CollapseMonitor()
    with pytest.warns(UserWarning, match=r"step 240: the teacher gives all clips of the batch the same prototype"):
        monitor._warn_of_prototypes(0.0, 0.05, 64, 240)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor._warn_of_prototypes(0.0, 0.05, 64, 260)
        CollapseMonitor()._warn_of_prototypes(0.1, 2.7, 64, 240)


def toy(momentum: float = 0.99, **changes):
    from ssl_audio.encoders.base import Encoder
    from ssl_audio.frontends import Waveform
    from ssl_audio.methods import DINO

    class Small(Encoder):
        def __init__(self):
            super().__init__()
            self.dim = 32
            self.net = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.GELU(), nn.Linear(64, 32))

        def forward(self, features):
            return self.net(features)

    torch.manual_seed(0)
    return DINO(
        projection=lambda dim: DINOHead(dim, 64, [64], 32),
        momentum=momentum,
        frontend=Waveform(),
        encoder=Small(),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
        freeze_last_layer=0,
        **changes,
    )
