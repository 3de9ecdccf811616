"""Windows of recordings: theirs alone, on their own labels, from any memory, in streams that go on."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tone, write_musicnet
from pytorch_lightning.callbacks import ModelCheckpoint

from ssl_audio import audio
from ssl_audio.cli import main
from ssl_audio.data import MusicNetDataModule, WindowDataModule
from ssl_audio.data.index import AudioIndex
from ssl_audio.data.sampler import Draw
from ssl_audio.data.store import STORE_NAME, attach, build
from ssl_audio.data.windows import WindowDataset
from ssl_audio.errors import InputError

SIZE = 4000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_musicnet(tmp_path / "musicnet")
    return tmp_path / "musicnet"


def dataset(root, **kwargs):
    groups = AudioIndex.scan([str(root / "train_data")], group_by_artist=False).groups
    return WindowDataset(groups, SIZE, 16000, **kwargs)


def module(root, **kwargs):
    defaults = {"sample_rate": 16000, "nr_samples": SIZE, "batch_size": 3, "num_workers": 0, "eval_frac": 0.25}
    made = MusicNetDataModule(str(root), **{**defaults, **kwargs})
    made.prepare_data()
    made.setup()
    return made


def test_a_window_is_a_part_of_one_recording(tree):
    windows = dataset(tree, seed=3)
    seen = set()
    for epoch in range(3):
        for item in range(len(windows)):
            got = windows[Draw(epoch, item)]
            path = windows.entries[got["index"]].path
            expected = audio.read(path, 16000, got["start"], SIZE)
            np.testing.assert_array_equal(got["clip1"].numpy(), expected)
            seen.add((path, got["start"]))
    assert len(seen) > 2 * len(windows)  # other windows each epoch
    fixed = dataset(tree, moving=False)
    assert [fixed[Draw(5, item)]["start"] for item in range(16)] == [SIZE * n for n in range(16)]
    assert len(fixed) == 16 + 20 + 16 + 26


def test_windows_move_by_half_a_window_and_reach_the_end(tmp_path):
    audio.write(tmp_path / "d" / "a.wav", tone(3.0), 16000)  # 12 windows exactly: none could move
    windows = WindowDataset(AudioIndex.scan([tmp_path / "d"], group_by_artist=False).groups, SIZE, 16000)
    offsets = [windows.offset(epoch, 0) for epoch in range(200)]
    assert len(windows) == 11 and min(offsets) < 200 and max(offsets) > SIZE - 200


def test_labels_lie_on_the_sound(tree):
    """Recordings of equal length among them: each window's roll is loud where its own audio is."""
    from ssl_audio.data.corpora.musicnet import recordings

    notes = {str(item.path): item.notes() for item in recordings(tree) if item.split == "train"}
    windows = dataset(tree)
    wrong = frames = 0
    for item in range(len(windows)):
        got = windows[Draw(1, item)]
        roll = notes[windows.entries[got["index"]].path].roll(got["start"] / 16000, 25, 100).any(axis=1)
        loud = got["clip1"].view(25, 160).square().mean(dim=1).sqrt().numpy() > 0.05
        wrong, frames = wrong + int((roll != loud).sum()), frames + 25
    assert wrong < 0.05 * frames  # frames in which a note begins or ends; shifted labels would miss a quarter


@pytest.mark.parametrize("room", [1, 130_000, 1 << 30])
def test_the_same_samples_from_any_memory(tree, room):
    plain = dataset(tree)
    build(tree / "train_data", 16000, progress=False)
    groups = attach(AudioIndex.scan([str(tree / "train_data")], group_by_artist=False), 16000)[0].groups
    stored = WindowDataset(groups, SIZE, 16000, room=room)
    whole = WindowDataset(groups, SIZE, 16000)
    order = np.random.default_rng(0).permutation(len(plain))
    for item in order:
        got = stored[Draw(2, int(item))]
        np.testing.assert_array_equal(got["clip1"], whole[Draw(2, int(item))]["clip1"])
        np.testing.assert_allclose(got["clip1"], plain[Draw(2, int(item))]["clip1"], atol=2e-5)
        assert stored.recordings.mapped <= room
    assert (stored.recordings.mapped > 0) == (room > 1)
    draws = [Draw(2, int(item)) for item in order[:5]]
    batch = stored.__getitems__(draws)  # what a DataLoader asks for
    for row, draw in enumerate(draws):
        one = stored[draw]
        np.testing.assert_array_equal(batch["clip1"][row], one["clip1"])
        assert [batch[key][row] for key in ("group_name", "index", "start")] == [
            one["group_name"],
            one["index"],
            one["start"],
        ]


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_of_sequential_batches_go_on_where_they_say_so(tree, workers):
    loader = module(tree, composition="sequential", num_workers=workers).train_dataloader()
    before, goes_on = None, 0
    for batch in loader:
        assert batch["clip1"].shape == (3, SIZE) and batch["clip2"] is batch["clip1"]
        if before is not None:
            for row in range(3):
                if batch["group_name"][row] == before["group_name"][row]:
                    assert batch["start"][row] == before["start"][row] + SIZE
                    goes_on += 1
        before = batch
    assert goes_on > 20


@pytest.mark.parametrize(("composition", "key"), [("samesequence", "index"), ("samecategory", "category")])
def test_batches_of_one_kind(tree, composition, key):
    data = module(tree, composition=composition, category="composer", eval_frac=0)
    of = {"1700.wav": "Bach", "1701.wav": "Bach", "1702.wav": "Ravel", "1703.wav": "Ravel"}
    kinds = []
    for batch in data.train_dataloader():
        names = [name.rpartition("/")[2] for name in batch["group_name"]]
        kinds.append({of[name] for name in names} if key == "category" else set(names))
    assert all(len(kind) == 1 for kind in kinds) and len(set(map(str, kinds))) > 1


def test_split_is_by_recording_and_stays(tree):
    data = module(tree)
    sides = [{group.entries[0].path for group in part} for part in (data.train_groups, data.val_groups)]
    assert len(sides[0]) == 3 and len(sides[1]) == 1 and not sides[0] & sides[1]
    again = module(tree, composition="samesequence")
    assert {group.entries[0].path for group in again.val_groups} == sides[1]
    first, second = ([b["start"].tolist() for b in data.val_dataloader()] for _ in range(2))
    assert first == second and all(start % SIZE == 0 for batch in first for start in batch)


def test_a_damaged_cache_is_made_anew_and_said(tree, caplog):
    data = module(tree, cache=True)
    paths = sorted((tree / "train_data" / STORE_NAME).rglob("*.int16"))
    assert len(paths) == 4 and all(group.entries[0].location for group in data.train_groups)
    good = paths[0].read_bytes()
    paths[0].write_bytes(good[:-100] + bytes(100 - len(good[-100:])) + bytes(b ^ 0x55 for b in good[-100:]))
    paths[1].write_bytes(paths[1].read_bytes()[:1000])
    with caplog.at_level("INFO", "pytorch_lightning.utilities.rank_zero"):
        data = module(tree, cache=True)
    assert "4 recordings cached, 2 of them (again) now" in caplog.text
    assert paths[0].read_bytes() == good
    windows = data.dataset(training=True)
    for item in range(len(windows)):
        got = windows[Draw(0, item)]
        expected = audio.read(windows.entries[got["index"]].path, 16000, got["start"], SIZE)
        np.testing.assert_allclose(got["clip1"], expected, atol=2e-5)


def test_a_file_that_goes_bad_is_replaced_and_follows_on_nothing(tree):
    windows = dataset(tree, moving=False)
    path = Path(windows.entries[0].path)
    path.write_bytes(path.read_bytes()[:20000])
    got = windows[Draw(0, 10)]
    assert got["failures"][0].path == str(path) and got["index"] != 0 and "#" in got["group_name"]
    assert got["clip1"].abs().max() > 0


def test_windows_longer_than_recordings(tree):
    data = module(tree, nr_samples=70000, batch_size=1)  # 4.4 s: two recordings of 4 s are too short
    assert sum("shorter than the window" in item.reason for item in data.index.left_out) == 2
    with pytest.raises(InputError, match=r"none of the files .* is as long as data\.nr_samples") as refused:
        module(tree, nr_samples=200000)
    assert "set data.short to repeat" in str(refused.value)
    made = module(tree, nr_samples=16000 * 60, batch_size=1, short="repeat")
    clip = next(iter(made.train_dataloader()))["clip1"][0]
    assert clip[-16000:].abs().max() > 0.1


def test_what_cannot_fill_a_batch_is_refused(tree):
    with pytest.raises(InputError, match=r"make no batch of 40 .*composition 'samesequence'"):
        module(tree, composition="samesequence", batch_size=40)
    with pytest.raises(InputError, match="1700, 1701, 1702, 1703 have no mood in the table"):
        module(tree, composition="samecategory", category="mood")
    with pytest.raises(InputError, match="max_audio_in_memory"):
        WindowDataModule([str(tree)], max_audio_in_memory=0)


def test_cpc_trains_with_carried_state_through_the_command(tree, tmp_path):
    assert main([
        "train", "--config", "common", "--config", "cpc", "--config", "data/musicnet-windows", "--data.root", str(tree),
        "--data.composition", "sequential", "--model.carry_state", "true", "--data.batch_size", "2",
        "--data.nr_samples", "8000", "--data.num_workers", "0", "--data.eval_frac", "0.25",
        "--model.encoder.channels", "8", "--model.encoder.context", "gru", "--model.steps", "3",
        "--model.num_negatives", "8", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu",
        "--trainer.logger.save_dir", str(tmp_path / "runs"), "--trainer.enable_progress_bar", "false",
    ]) == 0  # fmt: skip
    checkpoint = torch.load(tmp_path / "runs" / "cpc" / "0" / "checkpoints" / "last.ckpt", weights_only=True)
    carried = checkpoint["carried_state"]
    assert carried["state"].abs().sum() > 0
    assert all(name.endswith(".wav") for name in carried["groups"]) and len(carried["groups"]) == 2
    assert os.path.isdir(tree / "train_data" / STORE_NAME)


def test_a_state_is_not_carried_to_what_does_not_follow(tree, tmp_path, capsys):
    assert main([
        "train", "--config", "common", "--config", "cpc", "--config", "data/musicnet-windows", "--data.root", str(tree),
        "--model.carry_state", "true", "--model.encoder.context", "gru", "--model.encoder.channels", "8",
        "--data.nr_samples", "8000", "--data.batch_size", "2", "--data.num_workers", "0", "--data.eval_frac", "0.25",
        "--trainer.accelerator", "cpu", "--trainer.max_steps", "1", "--trainer.logger.save_dir", str(tmp_path / "runs"),
    ]) == 2  # fmt: skip
    assert "those of the data do not; set data.composition to sequential" in capsys.readouterr().err


def test_an_order_that_hangs_on_the_items_a_step_is_not_resumed_with_others(tree, tmp_path):
    from test_data_module import fit

    def run(name, batch_size, composition, **options):
        data = module(tree, batch_size=batch_size, composition=composition, eval_frac=0)
        return fit(data, tmp_path / name, epochs=2, **options).seen

    for composition in ("uniform", "sequential"):
        keep = ModelCheckpoint(tmp_path, filename=composition, every_n_train_steps=3)
        first = run("first", 4, composition, stop_at=3, callbacks=[keep])
        checkpoint = tmp_path / f"{composition}.ckpt"
        if composition == "sequential":
            with pytest.raises(InputError, match=r"4 items a step, and .* is 3 now.*set data\.batch_size to 4"):
                run("other", 3, composition, ckpt_path=checkpoint)
        second = run("same", 3 if composition == "uniform" else 4, composition, ckpt_path=checkpoint)
        rows = [(index, total) for epoch, index, total in first + second if epoch == 0]
        assert len(first) == 12 and len(set(rows)) == len(rows) > 70


def test_windows_have_labels_and_each_view_its_augmentation(tree):
    from ssl_audio.augmentations.clip import Gain

    labelled = module(tree, labels=True, category="ensemble")
    batch = next(iter(labelled.train_dataloader()))
    spec = labelled.batch_spec
    assert {"clip", "target"} <= batch.keys() and set(spec.classes) == set(labelled.classes) and len(spec.classes) > 1
    assert "clip1" not in batch and batch["target"].max() < len(spec.classes)
    data = WindowDataModule([str(tree)], nr_samples=SIZE, batch_size=3, num_workers=0, eval_frac=0.0,
                            group_by_artist=False, augmentation=Gain(-40, 0, p=1.0), normalize=True)  # fmt: skip
    data.setup()
    batch = next(iter(data.train_dataloader()))
    one, two = (batch[key].abs().amax(dim=1) for key in ("clip1", "clip2"))
    assert (one <= 1).all() and (two <= 1).all() and not torch.isclose(one, two).any()
    ratio = (batch["clip1"] / one[:, None]) - (batch["clip2"] / two[:, None])
    assert ratio.abs().max() < 1e-5  # the same window at two levels


def test_validation_has_its_own_batch_size(tree):
    made = module(tree, batch_size_val=5)
    assert next(iter(made.train_dataloader()))["clip1"].shape[0] == 3
    assert next(iter(made.val_dataloader()))["clip1"].shape[0] == 5
