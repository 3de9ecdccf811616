"""Sources, each on its own, and any kind of items from any of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_audio import audio
from ssl_audio.cli import main
from ssl_audio.data import AudioDataModule, WindowDataModule
from ssl_audio.data.labelled import LabelledDataModule
from ssl_audio.data.shards import write_shards
from ssl_audio.data.sources import Folders, NamedCorpus, Shards, Source
from ssl_audio.data.sources.labelled import GroupsAsClasses, ListedFiles
from ssl_audio.data.store import build
from ssl_audio.errors import InputError

SETTINGS = {"sample_rate": 16000, "nr_samples": 6000, "batch_size": 4, "num_workers": 0, "eval_frac": 0.2}


@pytest.fixture
def shards(singers: Path, tmp_path: Path) -> Path:
    """The recordings of `singers` in shards of three."""
    pytest.importorskip("webdataset", reason="webdataset is not installed (the extra 'shards')")
    write_shards(singers, tmp_path / "shards", 16000, shard_bytes=100_000, progress=False)
    return tmp_path / "shards"


def paths(source: Source) -> set[str]:
    return {entry.path for group in source.scan(progress=False).groups for entry in group.entries}


def names(groups: list) -> list[str]:
    return [group.name for group in groups]


def test_folders_name_themselves_and_open_copies_where_there_are_any(singers: Path) -> None:
    source = Folders(str(singers))
    assert str(source) == str(singers) and len(paths(source)) == 20 and source.problem(8000, "anything") == ""
    build(singers, 16000, progress=False)
    index, copies = source.find_copies(source.scan(progress=False), 16000)
    assert copies == 20
    entry = index.groups[0].entries[0]
    Path(entry.path).unlink()
    with source.open(entry) as recording:
        assert len(recording.read(0, 16000, 16000)) == 16000


def test_folders_make_their_copies_when_they_are_asked_to(singers: Path) -> None:
    for copy_at, copies in ((None, 0), (8000, 20)):
        source = Folders([str(singers)], copy_at=copy_at)
        source.prepare()
        assert source.find_copies(source.scan(progress=False), 8000)[1] == copies


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Folders([]), r"data\.dataset_dirs is empty"),
        (lambda: Folders("a", max_groups=0), r"data\.max_groups is 0"),
        (
            lambda: NamedCorpus(["a", "b"], {"name": "esc50"}),
            r"must name one folder, that of the corpus, and names a, b",
        ),
        (lambda: NamedCorpus(None, {"name": "esc50"}), r"must name one folder, that of the corpus, and names none"),
        (lambda: NamedCorpus("a", {"fold": 2}), r"data\.corpus has no name"),
        (lambda: Folders("nowhere").scan(), "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_a_source_is_one_line(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_corpus_has_its_own_split_and_labels(singers: Path) -> None:
    source = NamedCorpus(str(singers), {"name": "folder", "group": "file"})
    index = source.scan(progress=False)
    train, valid = source.split(index, 0.2, seed=0)
    official = {name: {str(track.path) for track in source.corpus.split(name)} for name in ("train", "valid", "test")}
    assert {entry.path for group in train for entry in group.entries} == official["train"]
    assert {entry.path for group in valid for entry in group.entries} == official["valid"]
    assert not paths(source) & official["test"]
    labels = source.labels()
    assert labels.classes == tuple(f"singer {n}" for n in range(5)) and not labels.multi_label
    assert all(labels.classes[target] == Path(path).parent.name for path, target in labels.targets.items())


def test_shards_say_what_is_wrong_with_them(shards: Path, tmp_path: Path) -> None:
    local = Shards(str(shards))
    assert local.problem(16000, "anything") == "" and local.budget is None and len(paths(local)) == 20
    assert "data.sample_rate is 8000 and the shards" in local.problem(8000, "")
    address = f"pipe:cat {shards}/{{}}"
    assert "cache is missing" in Shards(address).problem(16000, "")
    small = Shards(address, str(tmp_path / "cache"), cache_bytes=250_000)
    assert small.problem(16000, "") == "" and small.budget == 125_000
    assert small.problem(16000, "training on windows").startswith("training on windows needs all shards; raise cache_b")
    assert Shards(address, str(tmp_path / "cache")).budget is None


def test_groups_as_classes_split_within_each_class_and_keep_folders_together(tmp_path: Path, write_tone) -> None:
    for name in ("dog", "rain"):
        for take in range(5):
            for n in range(2):
                write_tone(tmp_path / "d" / name / f"take {take}" / f"{n}.wav", seconds=0.3)
    source = GroupsAsClasses(Folders(str(tmp_path / "d")))
    index = source.scan(progress=False)
    assert len(index.groups) == 10 and all(len(group.entries) == 2 for group in index.groups)
    train, valid = source.split(index, 0.2, seed=0)
    assert sorted(names(train)) == ["dog"] * 4 + ["rain"] * 4 and sorted(names(valid)) == ["dog", "rain"]
    assert [group.key for group in source.split(index, 0.2, seed=0)[1]] == [group.key for group in valid]
    assert source.split(index, 0.0, seed=0)[1] == []
    assert {source.labels().classes[t] for p, t in source.labels().targets.items() if "/dog/" in p} == {"dog"}


def test_listed_files_are_split_and_labelled_as_listed(singers: Path) -> None:
    files = sorted(singers.rglob("*.wav"))[:6]
    targets = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [1, 0], [0, 1]])
    source = ListedFiles(files, targets, ["a", "b"], train=[0, 2, 3], validation=[1])
    train, valid = source.split(source.scan(), 0.9, seed=5)
    assert names(train) == [str(files[i]) for i in (0, 2, 3)] and names(valid) == [str(files[1])]
    labels = source.labels()
    assert labels.multi_label and labels.targets[str(files[2])].tolist() == [1.0, 1.0]
    data = LabelledDataModule.of(files, targets, ["a", "b"], [0, 2, 3], [], batch_size=3, nr_samples=20000,
                                 sample_rate=16000, num_workers=0)  # fmt: skip
    data.prepare_data()
    data.setup()
    (batch,) = data.train_dataloader()
    assert batch["clip"].shape == (3, 20000) and batch["target"].shape == (3, 2) and data.val_dataloader() == []


def test_labelled_training_takes_shards_with_groups_as_classes(singers: Path, shards: Path) -> None:
    data = LabelledDataModule(source=Shards(str(shards)), **{**SETTINGS, "eval_frac": 0.25})
    data.prepare_data()
    data.setup()
    assert data.classes == [f"singer {n}" for n in range(5)] == list(data.batch_spec.classes)
    seen = 0
    for loader in (data.train_dataloader(), data.val_dataloader()):
        groups = data.train_groups if loader.sampler.shuffle else data.val_groups
        entries = [entry for group in groups for entry in group.entries]
        for batch in loader:
            for index, clip, target in zip(batch["index"], batch["clip"], batch["target"], strict=True):
                path = Path(entries[index].path).relative_to(shards)
                recording = audio.read(singers / path, 16000)
                places = np.lib.stride_tricks.sliding_window_view(recording, SETTINGS["nr_samples"])
                assert (places == clip.numpy()).all(axis=1).any() and data.classes[target] == path.parts[0]
                seen += 1
    assert seen == 12 + 4  # of 15 and 5: full batches


def test_windows_of_shards_are_the_windows_of_the_files(singers: Path, shards: Path) -> None:
    settings = {"nr_samples": 4000, "batch_size": 4, "num_workers": 0, "composition": "samecategory"}
    modules = [WindowDataModule([str(singers)], **settings), WindowDataModule(source=Shards(str(shards)), **settings)]
    for data in modules:
        data.prepare_data()
        data.setup()
    batches = [[*data.train_dataloader()] for data in modules]
    assert len(batches[0]) == len(batches[1]) > 4
    for ours, theirs in zip(*batches, strict=True):
        assert torch.equal(ours["clip1"], theirs["clip1"]) and torch.equal(ours["start"], theirs["start"])


def test_two_views_from_a_source_of_ones_own(singers: Path) -> None:
    class OneSinger(Folders):
        """A plug-in: the recordings of one singer, each its own group."""

        def __init__(self) -> None:
            super().__init__(str(singers / "singer 0"), group_by_artist=False)

    data = AudioDataModule(source=OneSinger(), **{**SETTINGS, "batch_size": 2, "eval_frac": 0.5})
    data.setup()
    assert next(iter(data.train_dataloader()))["clip1"].shape == (2, 6000)
    assert {Path(entry.path).parent.name for entry in data.training_entries} == {"singer 0"}


def test_the_source_of_labels_is_a_key_of_the_config(shards: Path, tmp_path: Path) -> None:
    source = f"{{class_path: ssl_audio.data.sources.Shards, init_args: {{shards: '{shards}'}}}}"
    assert main([
        "train", "--config", "common", "--config", "supervised", "--config", "encoder/compact_cnn",
        "--model.encoder.channels", "[4]", "--data.source", source, "--data.sample_rate", "16000",
        "--data.nr_samples", "8000", "--data.batch_size", "4", "--data.num_workers", "0",
        "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
        "--trainer.logger.save_dir", str(tmp_path / "runs"),
    ]) == 0  # fmt: skip
    assert (tmp_path / "runs" / "supervised" / "0" / "checkpoints" / "last.ckpt").is_file()
