"""Whitening of embeddings: against its definition, as a part of a model, and fitted by a training run."""

import copy

import numpy as np
import pytest
import torch
from helpers import tiny_frontend
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from ssl_audio import audio
from ssl_audio.callbacks import Whiten
from ssl_audio.data import AudioDataModule
from ssl_audio.data.windows import WindowDataModule
from ssl_audio.encoders import CompactCNN, Whitened
from ssl_audio.encoders.whitened import Whitening
from ssl_audio.errors import InputError
from ssl_audio.heads import Projection
from ssl_audio.hub import load_model
from ssl_audio.hub.saved import save_model
from ssl_audio.methods import Contrastive

pytestmark = pytest.mark.filterwarnings("ignore")


def correlated(rows: int, dim: int = 6, seed: int = 0) -> torch.Tensor:
    """Rows with one direction that is larger than the others, and a mean."""
    mix = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99))
    scale = torch.tensor([5.0] + [1.0] * (dim - 1))
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)) * scale @ mix + 5


def fitted(shrinkage: float, *collections: torch.Tensor) -> Whitening:
    layer = Whitening(collections[0].shape[1], shrinkage)
    layer.fit(collections)
    return layer


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_almost_no_shrinkage_gives_uncorrelated_rows_of_unit_variance_and_no_mean():
    rows = correlated(500)
    out = fitted(1e-6, rows)(rows)
    torch.testing.assert_close(out.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.T @ out / 500, torch.eye(6), atol=0.02, rtol=0)


def test_much_shrinkage_only_centres_and_scales():
    rows = correlated(50)
    scale = rows.var(0, correction=0).mean().sqrt()
    torch.testing.assert_close(fitted(1e6, rows)(rows) * scale, rows - rows.mean(0), atol=0.02, rtol=1e-3)


def test_cosines_are_those_of_zca_and_collections_weigh_the_same():
    large, small = correlated(300), 2 * correlated(40, seed=1) - 20
    found = fitted(4.0, large, small)(large[:20]).double().numpy()
    parts = [large.double().numpy(), small.double().numpy()]
    mean = (parts[0].mean(0) + parts[1].mean(0)) / 2
    covariance = sum((x - mean).T @ (x - mean) / len(x) / 2 for x in parts)
    values, vectors = np.linalg.eigh(covariance)
    zca = (parts[0][:20] - mean) @ vectors @ np.diag((values + 4 * values.mean()) ** -0.5) @ vectors.T
    np.testing.assert_allclose(unit(found) @ unit(found).T, unit(zca) @ unit(zca).T, atol=1e-4)


def test_a_row_does_not_depend_on_its_neighbours():
    rows = correlated(40)
    layer = fitted(4.0, rows)
    torch.testing.assert_close(layer(rows[3:4])[0], layer.train()(rows)[3])


@pytest.mark.parametrize("rows", [torch.zeros(8, 6), torch.ones(8, 6), correlated(1)], ids=["zeros", "ones", "one row"])
def test_rows_without_variance_stay_finite(rows):
    layer = fitted(4.0, rows)
    assert torch.isfinite(layer(rows)).all() and torch.isfinite(layer(correlated(5))).all()


def test_what_cannot_work_is_refused():
    with pytest.raises(InputError, match=r"shrinkage is 0.0; it must be above 0"):
        Whitening(4, 0.0)
    with pytest.raises(InputError, match="finite embeddings of at least one clip"):
        Whitening(4).fit([torch.full((3, 4), torch.nan)])
    with pytest.raises(InputError, match="takes 5 dimensions and the encoder gives 12"):
        Whitened(CompactCNN([4, 8], 12), Whitening(5))
    with pytest.raises(InputError, match="must be at least 1"):
        Whiten(max_files=0)


def method() -> Contrastive:
    torch.manual_seed(0)
    encoder = CompactCNN([4, 8], 12)
    return Contrastive(
        frontend=tiny_frontend(), encoder=encoder, projection=lambda dim: Projection(dim, 8), sample_rate=16000
    )


def data(folder, **changes) -> AudioDataModule:
    arguments = {"sample_rate": 16000, "nr_samples": 8000, "batch_size": 4, "eval_frac": 0.0, "num_workers": 0}
    return AudioDataModule([str(folder)], **arguments | changes)


def train(module, where, folder, callbacks, epochs=2, **changes):
    keep = ModelCheckpoint(where, filename="last", enable_version_counter=False)
    trainer = Trainer(max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
                      accelerator="cpu", precision="bf16-mixed", callbacks=[*callbacks, keep],
                      default_root_dir=where)  # fmt: skip
    trainer.fit(module, datamodule=data(folder, **changes))
    return module.eval()


def test_a_run_fits_it_on_its_own_files_and_checkpoint_and_model_folder_keep_it(singers, tmp_path):
    trained = train(method(), tmp_path, singers, [Whiten()])
    module = data(singers)
    module.setup("fit")
    (windows,) = module.plain_training_sets(1000)
    clips = torch.stack([windows[i]["clip1"] for i in range(len(windows))])
    plain, model = trained(clips), trained.embedding_model()
    assert not torch.allclose(trained.whitening.matrix, torch.eye(12))
    torch.testing.assert_close(model(clips), trained.whitening(plain))
    torch.testing.assert_close(model(clips).mean(0), torch.zeros(12), atol=1e-3, rtol=0)
    save_model(model, tmp_path / "model")
    for name in ("last.ckpt", "model"):
        loaded = load_model(str(tmp_path / name))
        torch.testing.assert_close(loaded(clips), model(clips))
        assert loaded.frames(clips).shape == trained.encoder.frames(trained.frontend(clips)).shape
    projected = load_model(str(tmp_path / "last.ckpt"), projection=True)
    torch.testing.assert_close(projected(clips), trained.projection(plain))  # heads see embeddings as they are


def test_the_training_is_the_same_with_and_without_and_goes_on_from_a_checkpoint(singers, tmp_path):
    with_it = train(method(), tmp_path / "with", singers, [Whiten(every_n_epochs=1)])
    without = train(method(), tmp_path / "without", singers, [])
    for name, value in without.state_dict().items():
        assert torch.equal(value, with_it.state_dict()[name]), name
    again, callback = method(), Whiten()
    trainer = Trainer(max_epochs=2, logger=False, enable_progress_bar=False, enable_model_summary=False,
                      accelerator="cpu", precision="bf16-mixed", callbacks=[callback],
                      default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(again, datamodule=data(singers), ckpt_path=tmp_path / "with" / "last.ckpt")  # nothing is left to do
    assert torch.equal(again.whitening.matrix, with_it.whitening.matrix)


def test_files_are_windows_as_they_are_evenly_taken_and_each_data_set_apart(singers, tmp_path):
    other = tmp_path / "other" / "someone"
    other.mkdir(parents=True)
    for path in sorted(singers.glob("singer 0/*.wav"))[:2]:
        (other / path.name).symlink_to(path)
    module = AudioDataModule([str(singers), str(other.parent)], sample_rate=16000, nr_samples=16000, batch_size=2,
                             eval_frac=0.0, multi_epoch=3, batch_sampling_mode="sample_groups")  # fmt: skip
    module.setup("fit")
    whole = module.plain_training_sets(max_files=1000)
    assert [len(dataset) for dataset in whole] == [20, 2]
    files = [[dataset[i]["index"] for i in range(len(dataset))] for dataset in whole]
    assert sorted([*files[0], *files[1]]) == list(range(22))
    assert [len(dataset) for dataset in module.plain_training_sets(max_files=5)] == [5, 2]
    clip = whole[1][0]["clip1"]
    torch.testing.assert_close(clip, torch.from_numpy(audio.peak_normalize(audio.read(other / "song0.wav"))))


def test_windows_give_a_part_of_each_recording_at_its_own_level(singers):
    module = WindowDataModule([str(singers)], nr_samples=4000, sample_rate=16000, batch_size=2, eval_frac=0.0)
    module.setup("fit")
    (windows,) = module.plain_training_sets(10)
    assert len(windows) == 10
    for i in range(10):
        item = windows[i]
        recording = audio.read(module.training_entries[item["index"]].path)
        places = np.lib.stride_tricks.sliding_window_view(recording, 4000)
        assert (places == item["clip1"].numpy()).all(axis=1).any()


def test_a_run_without_a_data_module_of_recordings_is_refused_before_its_first_step():
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, accelerator="cpu", callbacks=[Whiten()])  # fmt: skip
    trained = method()
    clips = torch.randn(4, 8000)
    with pytest.raises(InputError, match=r"callbacks\.whiten needs a data module of recordings"):
        trainer.fit(trained, torch.utils.data.DataLoader([{"clip1": clip, "clip2": clip} for clip in clips]))
    assert trained.global_step == 0


def test_a_copy_of_the_model_keeps_its_own():
    model = Whitened(CompactCNN([4, 8], 12), fitted(4.0, torch.randn(30, 12)))
    kept = copy.deepcopy(model)
    model.whitening.fit([torch.randn(30, 12)])
    assert not torch.equal(kept.whitening.matrix, model.whitening.matrix)
