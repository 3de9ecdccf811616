"""The examples in the docstrings of the parts that users combine run as they stand."""

import doctest
from importlib import import_module

import pytest

MODULES = [
    "augmentations.batch", "augmentations.clip", "config", "embedding.conditions", "encoders.base", "errors",
    "evaluation.fusion", "frontends.kaldi",
    "frontends.mel", "frontends.nnaudio", "heads", "model", "pooling", "resampling", "schedules",
    "training.interpolation", "training.short_names",
]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(import_module(f"ssl_audio.{name}"))
    assert result.attempted, "this module has examples"
    assert result.failed == 0, "see the output above"
