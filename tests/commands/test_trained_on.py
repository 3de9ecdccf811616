"""Whoever tests a run on the recordings that it was trained on is told so."""

import pytest
import yaml

from ssl_audio.commands._models import say_if_trained_on


@pytest.mark.parametrize("tested,said", [("voices", True), ("voices/anna", True), (".", True), ("others", False)])
def test_a_test_on_the_training_data_is_said(tmp_path, monkeypatch, capsys, tested, said):
    monkeypatch.chdir(tmp_path)
    for folder in ("run/checkpoints", "voices/anna", "others"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"dataset_dirs": ["voices"]}}}))
    (tmp_path / "run/checkpoints/last.ckpt").touch()
    for name in ("run", "run/checkpoints/last.ckpt"):
        say_if_trained_on(name, [tested])
        assert ("was trained on" in capsys.readouterr().err) == said
    say_if_trained_on("byol", ["voices"])
    assert not capsys.readouterr().err
