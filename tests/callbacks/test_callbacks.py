"""What watches a run: its figures against direct definitions, its warnings, its cost."""

import math
import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.nn.functional import normalize
from torch.optim import SGD

from ssl_audio.callbacks import CollapseMonitor, DataWaitProgressBar, FiniteLoss, InBatchMetrics
from ssl_audio.callbacks.collapse import collapse_metrics
from ssl_audio.callbacks.in_batch import view_ranks
from ssl_audio.errors import InputError
from ssl_audio.evaluation import equal_error_rate
from ssl_audio.losses import alignment_loss, uniformity_loss
from ssl_audio.schedules import WarmupCosine


class Outputs(LightningModule):
    """A step whose outputs are the batch itself, so that a callback's figures can be checked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.logged: list[dict] = []

    def training_step(self, batch, batch_idx):
        z = batch["z"]
        return {"loss": self.weight.sum() + batch["loss"].sum(), "embeddings": (z[:, 0], z[:, 1])}

    def validation_step(self, batch, batch_idx):
        return self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def batches(views: list[torch.Tensor], loss: float = 0.0) -> list[dict]:
    """(batch, 2, dim) each."""
    return [{"z": z, "loss": torch.tensor([loss]), "index": torch.arange(len(z)) + 100} for z in views]


def fit(callback, training, validation=None, module=None, **settings) -> Trainer:
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_model_summary=False,
        num_sanity_val_steps=0, log_every_n_steps=1, callbacks=callback if isinstance(callback, list) else [callback],
        enable_progress_bar=isinstance(callback, DataWaitProgressBar), **{"enable_checkpointing": False, **settings},
    )  # fmt: skip
    loaders = [torch.utils.data.DataLoader(b, batch_size=None) for b in (training, validation) if b is not None]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*|.*treespec.*|.*_step. hook.*")
        trainer.fit(module or Outputs(), *loaders)
    return trainer


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 999))
def test_ranks_equal_counting(n, dim, seed):
    z = torch.randint(-2, 3, (2, n, dim), generator=torch.Generator().manual_seed(seed)).double() + 0.1
    v1, v2 = normalize(z[0], dim=1), normalize(z[1], dim=1)
    similarity = v1 @ v2.T
    for i, rank in enumerate(view_ranks(v1, v2).tolist()):
        others = [float(similarity[i, j]) for j in range(n) if j != i]
        own = float(similarity[i, i])
        assert rank == pytest.approx(sum((s > own) + 0.5 * (s == own) for s in others) / (n - 1))


def test_in_batch_figures_of_an_epoch_are_those_of_all_its_batches():
    views = [torch.randn(n, 2, 6, generator=torch.Generator().manual_seed(n)) for n in (5, 5, 3)]
    logged = fit(InBatchMetrics(), batches(views[:1]), batches(views)).callback_metrics
    same, different, ranks, alignment, uniformity = [], [], [], [], []
    for z in views:
        v1, v2 = normalize(z[:, 0], dim=1), normalize(z[:, 1], dim=1)
        same += (v1 * v2).sum(1).tolist()
        different += [float(v1[i] @ v2[i - 1]) for i in range(len(z))]
        ranks += view_ranks(v1, v2).tolist()
        alignment.append(float(alignment_loss(v1, v2)))
        uniformity.append(float(uniformity_loss(v1) + uniformity_loss(v2)) / 2)
    eer = equal_error_rate([1] * len(same) + [0] * len(different), same + different)[0]
    for name, value in {
        "eer": eer,
        "rank_mean": np.mean(ranks),
        "rank_variance": np.var(ranks),
        "alignment": np.mean(alignment),
        "uniformity": np.mean(uniformity),
    }.items():
        assert logged[f"{name}_embeddings/val"].item() == pytest.approx(value, abs=1e-5), name


def test_collapsed_views_are_chance_and_not_perfect():
    logged = fit(InBatchMetrics(), batches([torch.ones(6, 2, 4)]), batches([torch.ones(6, 2, 4)])).callback_metrics
    assert logged["eer_embeddings/val"] == 0.5 and logged["rank_mean_embeddings/val"] == 0.5


def test_collapse_metrics_against_their_definitions():
    z = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    figures = collapse_metrics(z)
    unit = normalize(z, dim=1).double()
    cosines = [float(unit[i] @ unit[j]) for i in range(20) for j in range(20) if i != j]
    assert figures["mean_cosine"] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert figures["std"] == pytest.approx(float(unit.std(0).mean()) * math.sqrt(7), rel=1e-5)
    singular = np.linalg.svd((z - z.mean(0)).double().numpy(), compute_uv=False)
    share = singular / singular.sum()
    assert figures["effective_rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)


@pytest.mark.parametrize("n,dim", [(6, 40), (40, 6)])
def test_effective_rank_knows_how_many_dimensions_are_used(n, dim):
    basis = torch.linalg.qr(torch.randn(dim, 3, generator=torch.Generator().manual_seed(0)))[0]
    weights = torch.linalg.qr(torch.randn(n, 3, generator=torch.Generator().manual_seed(1)))[0]
    centred = weights - weights.mean(0)
    rank = collapse_metrics(centred @ basis.T + 5)["effective_rank"]
    assert 2.5 < rank <= 3.001
    assert collapse_metrics(torch.ones(n, dim))["effective_rank"] == 0


def test_a_dying_representation_is_told_once_in_words_and_a_live_one_is_not():
    alive = [torch.randn(8, 2, 16, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    one_way = [torch.ones(8, 2, 16) + 1e-3 * z for z in alive]
    line = [z[:, :, :1] * torch.ones(16) for z in alive]
    for views, said in ((one_way, "point the same way"), (line, "vary in few dimensions")):
        with pytest.warns(UserWarning, match=said) as caught:
            fit(CollapseMonitor(every_n_steps=1, after_steps=2), batches(views))
        assert len([w for w in caught if said in str(w.message)]) == 1
        assert "step 2" in next(str(w.message) for w in caught if said in str(w.message))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*collapsing.*")
        logged = fit(CollapseMonitor(every_n_steps=1, after_steps=0), batches(alive)).callback_metrics
        fit(CollapseMonitor(every_n_steps=1, after_steps=9), batches(one_way))
    assert 0 < logged["collapse/time_share"] < 1 and logged["collapse/effective_rank"] > 4


def test_a_loss_that_is_not_finite_names_step_and_clips_before_the_weights_are_touched():
    views = [torch.randn(3, 2, 4) for _ in range(3)]
    training = batches(views[:2]) + batches(views[2:], loss=math.nan)
    with pytest.raises(InputError, match="not finite at step 2 on a batch of clips from 100, 101, 102;"):
        fit(FiniteLoss(), training)


class Root(Outputs):
    """Its loss is 0 and finite at weight 0; the gradient is infinite."""

    def training_step(self, batch, batch_idx):
        return self.weight.sum().sqrt()


def test_weights_that_a_finite_loss_made_infinite_are_never_saved(tmp_path):
    module, training = Root(), batches([torch.randn(3, 2, 4)])
    with torch.no_grad():
        module.weight.fill_(1.0)
    callbacks = [FiniteLoss(), ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)]
    fit(callbacks, training, module=module, enable_checkpointing=True)
    before = list(tmp_path.iterdir())
    assert [path.name for path in before] == ["step=1.ckpt"]
    with torch.no_grad():
        module.weight.zero_()
    with pytest.raises(InputError, match=r"the weights are not finite at step 1 \(weight\); .* lr"):
        callbacks = [FiniteLoss(), ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)]
        fit(callbacks, training, module=module, enable_checkpointing=True)
    assert list(tmp_path.iterdir()) == before
    assert torch.load(before[0], weights_only=True)["state_dict"]["weight"].isfinite().all()


def test_the_bar_shows_the_share_of_time_spent_waiting(capsys):
    class Slow(torch.utils.data.Dataset):
        items = batches([torch.randn(3, 2, 4) for _ in range(4)])

        def __len__(self):
            return len(self.items)

        def __getitem__(self, i):
            time.sleep(0.03)
            return self.items[i]

    start = time.perf_counter()
    trainer = fit(DataWaitProgressBar(refresh_rate=1), Slow())
    took = time.perf_counter() - start
    assert 3 * 0.03 / took < trainer.callback_metrics["data_wait"] < 1
    assert "data_wait=" in capsys.readouterr().out


def schedule(steps: int = 0, **arguments) -> WarmupCosine:
    class Length:
        estimated_stepping_batches, num_training_batches, accumulate_grad_batches, callbacks = 100, 10, 1, ()

    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = WarmupCosine(optimizer, **arguments)
    scheduler.bind(Length())
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return scheduler


def test_the_learning_rate_rises_then_falls_by_a_cosine():
    for arguments in ({"warmup": 2, "unit": "epochs"}, {"warmup": 20, "unit": "steps", "total": 100}):
        rates = [schedule(steps, **arguments).get_last_lr()[0] for steps in (0, 10, 20, 60, 100, 120)]
        assert 0 < rates[0] < 0.02
        assert rates[1:] == pytest.approx([1.0, 2.0, 1.0, 0.0, 0.0], abs=1e-9)


def test_a_schedule_continues_from_its_state_with_the_length_of_the_training_that_resumes_it():
    state = schedule(30, warmup=2).state_dict()
    resumed = schedule(0, warmup=2)
    resumed.load_state_dict(state)
    resumed.optimizer.step()
    resumed.step()
    assert resumed.get_last_lr() == pytest.approx(schedule(31, warmup=2).get_last_lr())
    assert "total" not in state


@pytest.mark.parametrize("arguments", [{"warmup": -1}, {"warmup": 5, "total": 5}, {"final": 2}, {"unit": "minutes"}])
def test_an_impossible_schedule_is_refused(arguments):
    with pytest.raises(InputError, match="WarmupCosine"):
        schedule(**arguments)


def test_few_dimensions_in_a_large_batch_warn_and_a_full_small_batch_does_not():
    monitor = CollapseMonitor()
    figures = {"mean_cosine": 0.84, "effective_rank": 2.5}  # what BYOL with EfficientNet-B0 came to
    with pytest.warns(UserWarning, match=r"effective rank 2.5 of 31 possible"):
        monitor._warn(figures, 240, 31)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CollapseMonitor()._warn(figures, 240, 3)


class OneView(Outputs):
    """A method whose steps return embeddings of one view, or no embeddings."""

    def __init__(self, views: int) -> None:
        super().__init__()
        self.views = views

    def training_step(self, batch, batch_idx):
        outputs = super().training_step(batch, batch_idx)
        return {"loss": outputs["loss"]} | ({"embeddings": outputs["embeddings"][:1]} if self.views else {})


@pytest.mark.parametrize(
    ("callback", "views", "message"),
    [
        (
            InBatchMetrics(),
            1,
            "in_batch needs embeddings of 2 or more views of each clip, and the method returns 1 view",
        ),
        (InBatchMetrics(), 0, "in_batch .* the method returns no embeddings; set callbacks.in_batch to null"),
        (
            CollapseMonitor(),
            0,
            "collapse needs embeddings of 1 or more views of each clip, .* set callbacks.collapse to null",
        ),
    ],
)
def test_a_method_without_the_views_of_a_callback_is_refused_at_the_first_step(callback, views, message):
    module = OneView(views)
    with pytest.raises(InputError, match=message):
        fit(callback, batches([torch.randn(4, 2, 6)] * 3), module=module)
    assert module.global_step == 1


def test_collapse_is_watched_in_methods_of_one_view_too():
    logged = fit(CollapseMonitor(every_n_steps=1), batches([torch.randn(8, 2, 6)]), module=OneView(1)).callback_metrics
    assert logged["collapse/effective_rank"] > 3
