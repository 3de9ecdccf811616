"""Saved models whose config.yaml was edited wrongly."""

import pytest
import yaml
from helpers import tiny_frontend

from ssl_audio import load_model, save_model
from ssl_audio.encoders import CompactCNN
from ssl_audio.errors import InputError
from ssl_audio.model import EmbeddingModel


@pytest.mark.parametrize(
    "keys,value,words",
    [
        (("class_path",), None, "a class_path in the config is None"),
        (("init_args", "encoder", "class_path"), None, "a class_path in the config is None"),
        (("init_args", "encoder", "class_path"), ["a"], r"a class_path in the config is \['a'\]"),
        (
            ("init_args", "encoder", "init_args"),
            [1],
            "init_args of .*CompactCNN in the config must be names with values",
        ),
        (("init_args", "encoder", "init_args", "stem_stride"), ..., "stem_stride"),
        (("init_args", "encoder", "init_args", "stem_stride"), None, "stem_stride"),
        (("init_args", "encoder", "init_args", "stem_stride"), 0, "stem_stride"),
        (("init_args", "encoder", "init_args", "channels"), None, "CompactCNN cannot be built"),
        (("init_args", "sample_rate"), None, "sample_rate"),
        (("init_args", "sample_rate"), ..., "sample_rate"),
    ],
)
def test_a_damaged_description_ends_in_one_line(tmp_path, keys, value, words):
    encoder = CompactCNN([4, 8], 6, n_mels=16, stem_stride=2)
    save_model(EmbeddingModel(tiny_frontend(n_mels=16), encoder, 16000), tmp_path / "m")
    path = tmp_path / "m" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    place = content["model"]
    for key in keys[:-1]:
        place = place[key]
    if value is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=words) as error:
        load_model(tmp_path / "m")
    assert "\n" not in str(error.value)
