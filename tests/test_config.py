"""Modules as data: the names of classes, old and new, and what makes two models the same."""

from importlib import import_module

import pytest
import torch
from helpers import tiny_frontend, tiny_model

from ssl_audio import config
from ssl_audio.baselines import mean_mel, mfcc_statistics
from ssl_audio.config import build, canonical, class_path, describe, find, identity
from ssl_audio.encoders import CompactCNN
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint
from ssl_audio.training.config import load_config
from ssl_audio.training.merging import merge

FILE_OF_COMPACT_CNN = "ssl_audio.encoders.compact_cnn.CompactCNN"


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (CompactCNN, "ssl_audio.encoders.CompactCNN"),
        (EmbeddingModel, "ssl_audio.EmbeddingModel"),
        (LogMelSpectrogram, "ssl_audio.frontends.LogMelSpectrogram"),
        (torch.optim.AdamW, "torch.optim.AdamW"),
        (int, "builtins.int"),
    ],
)
def test_a_class_has_the_shortest_path_that_users_know(kind: type, path: str) -> None:
    assert class_path(kind) == path
    assert find(path) is kind


def test_an_old_path_finds_the_class_where_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.MOVED, "ssl_audio.old.Network", "ssl_audio.encoders.CompactCNN")
    old = {"class_path": "ssl_audio.old.Network", "init_args": {"channels": [4, 8], "embedding_dim": 6}}
    assert find("ssl_audio.old.Network") is CompactCNN
    assert isinstance(build(old), CompactCNN)
    assert canonical([old])[0]["class_path"] == "ssl_audio.encoders.CompactCNN"


def test_a_moved_name_does_not_open_the_door_to_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.MOVED, "os.path.Old", "ssl_audio.encoders.CompactCNN")
    with pytest.raises(InputError, match="not part of ssl_audio"):
        build({"class_path": "os.path.Old", "init_args": {"channels": [4]}})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("ssl_audio.encoders.CompactCMM", "has no 'CompactCMM'; did you mean 'CompactCNN'"),
        ("ssl_audio.nothing.Here", "there is no module 'ssl_audio.nothing'"),
        ("CompactCNN", "expected a full path"),
        (".CompactCNN", "expected a full path"),
        ("..x.CompactCNN", "cannot be imported"),
    ],
)
def test_a_wrong_path_is_one_line(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find(path)


def test_two_spellings_of_a_class_are_equal_when_files_are_stacked() -> None:
    base = {"class_path": "ssl_audio.encoders.CompactCNN", "init_args": {"channels": [4]}}
    over = {"class_path": FILE_OF_COMPACT_CNN, "init_args": {"embedding_dim": 8}}
    assert merge(base, over)["init_args"] == {"channels": [4], "embedding_dim": 8}
    other = {"class_path": "ssl_audio.encoders.ResNet50", "init_args": {"embedding_dim": 8}}
    assert merge(base, other) == other


def test_a_run_config_with_another_spelling_stacks() -> None:
    config = load_config(
        ["common", "contrastive"],
        [("data.dataset_dirs", "[here]"), ("model.encoder.class_path", "ssl_audio.encoders.efficientnet.EfficientNet")],
    )
    assert config["model"]["init_args"]["encoder"]["init_args"]["backbone"] == "efficientnet_b0"


def test_models_of_other_arguments_have_other_fingerprints() -> None:
    """Without weights to tell them apart."""
    marks = [fingerprint(model) for model in (mean_mel(16000), mfcc_statistics(16000), mean_mel(44100))]
    assert len(set(marks)) == 3
    assert fingerprint(mean_mel(16000)) == marks[0]


def test_an_argument_that_changes_nothing_leaves_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(6)
    description = identity(describe(model))
    assert "dropout" in description["init_args"]["encoder"]["init_args"]
    monkeypatch.setitem(config.ADDED, "ssl_audio.encoders.CompactCNN", {"dropout": 0.0})
    assert "dropout" not in identity(describe(model))["init_args"]["encoder"]["init_args"]
    model.encoder.dropout = 0.5
    assert "dropout" in identity(describe(model))["init_args"]["encoder"]["init_args"]


def test_what_cannot_be_told_apart_has_no_fingerprint() -> None:
    class Forgetful(CompactCNN):
        def __init__(self, hidden: int) -> None:
            super().__init__([4, 8], embedding_dim=6)

    model = EmbeddingModel(tiny_frontend(), Forgetful(3), 16000)
    with pytest.raises(InputError, match="Forgetful does not store its argument 'hidden'"):
        fingerprint(model)


@pytest.mark.parametrize(
    ("module", "name"),
    [("allocator", "keep_freed_memory"), ("saved", "save_model"), ("saved", "load_checkpoint")],
)
def test_an_old_module_hands_on_its_names_and_says_so(module: str, name: str) -> None:
    old = import_module(f"ssl_audio.{module}")
    with pytest.warns(FutureWarning, match=rf"ssl_audio\.{module}\.{name} is ssl_audio\.\S+ since 0\.2"):
        found = getattr(old, name)
    assert callable(found) and found.__module__ != old.__name__
    with pytest.raises(AttributeError):
        _ = old.no_such_name
