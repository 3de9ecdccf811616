"""The published layout: the original's own values, torchvision's arithmetic written out, and what is refused."""

import hashlib
import http.server
import json
import pickle
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from ssl_audio import load_model
from ssl_audio.encoders import CompactCNN, EfficientNet, efficientnet
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub import singer_identity
from ssl_audio.model import EmbeddingModel


@pytest.fixture(scope="module")
def source(shared, tmp_path_factory):
    """A folder with the model `byol`, written by the fixture's own script."""
    folder = tmp_path_factory.mktemp("published models")
    subprocess.run([sys.executable, shared / "fixtures/make_checkpoint.py", folder], check=True, capture_output=True)
    return folder


def torchvision_forward(weights, image):
    """torchvision's EfficientNet in evaluation mode, from its state dict alone: (batch, 3, height, width) -> logits."""

    def layer(x, convolution, norm, stride=1, activate=True):
        weight = weights[f"{convolution}.weight"]
        groups = x.shape[1] // weight.shape[1]
        x = F.conv2d(x, weight, None, stride, (weight.shape[-1] - 1) // 2, 1, groups)
        mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        x = F.batch_norm(x, mean, variance, weights[f"{norm}.weight"], weights[f"{norm}.bias"], eps=1e-5)
        return x * torch.sigmoid(x) if activate else x

    def squeeze(x, name):
        s = x.mean((2, 3), keepdim=True)
        s = F.conv2d(s, weights[f"{name}.fc1.weight"], weights[f"{name}.fc1.bias"])
        s = F.conv2d(s * torch.sigmoid(s), weights[f"{name}.fc2.weight"], weights[f"{name}.fc2.bias"])
        return x * torch.sigmoid(s)

    x = layer(image, "features.0.0", "features.0.1", stride=2)
    for stage, stride in enumerate((1, 2, 2, 2, 1, 2, 1), start=1):
        repeat = 0
        while f"features.{stage}.{repeat}.block.0.0.weight" in weights:
            name, y, index = f"features.{stage}.{repeat}.block", x, 0
            if stage > 1:
                y, index = layer(y, f"{name}.0.0", f"{name}.0.1"), 1
            y = layer(y, f"{name}.{index}.0", f"{name}.{index}.1", stride=1 if repeat else stride)
            y = squeeze(y, f"{name}.{index + 1}")
            y = layer(y, f"{name}.{index + 2}.0", f"{name}.{index + 2}.1", activate=False)
            x, repeat = (x + y if repeat else y), repeat + 1
    x = layer(x, "features.8.0", "features.8.1").mean((2, 3))
    return F.linear(x, weights["classifier.1.weight"], weights["classifier.1.bias"])


def lively(encoder):
    """Weights and statistics under which every layer matters."""
    generator = torch.Generator().manual_seed(3)
    for key, value in encoder.state_dict().items():
        if "running_mean" in key or key.endswith("bias"):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        elif "running_var" in key or (value.ndim == 1 and value.is_floating_point()):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return encoder.eval()


def test_agrees_with_the_original_and_not_with_the_batch(source, shared):
    expected = np.load(shared / "fixtures/expected_byol.npz")
    clips = torch.from_numpy(expected["audio"])
    model = load_model("byol", source=source)
    assert (model.dim, model.sample_rate, model.training) == (1000, 44100, False)
    reference = expected["embedding_one_clip_a_batch"]
    with torch.no_grad():
        for embeddings in (
            torch.cat([model(clip[None]) for clip in clips]),
            model(clips),
            model(clips.flip(0)).flip(0),
        ):
            assert np.abs(embeddings.numpy() - reference).max() <= 1e-4 * np.abs(reference).max()


def test_state_dict_names_are_the_published_ones(source, shared):
    layout = json.loads((shared / "fixtures/published_layout.json").read_text())
    original = torch.load(source / "byol" / "model.pt", weights_only=True)
    written = singer_identity.published_weights(load_model("byol", source=source))
    assert {k: list(v.shape) for k, v in written.items() if k in layout["encoder_keys"]} == layout["encoder_keys"]
    assert written.keys() == original.keys() and len(written) == 364
    for key, value in original.items():
        torch.testing.assert_close(written[key], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("backbone", "depths"), [("efficientnet_b0", (1, 2, 2, 3, 3, 4, 1)), ("efficientnet_b4", (2, 4, 4, 6, 6, 8, 2))]
)
def test_the_mapping_gives_torchvisions_network(backbone, depths):
    torch.manual_seed(0)
    encoder = lively(EfficientNet(backbone, embedding_dim=12))
    theirs = efficientnet.to_torchvision(encoder.state_dict(), encoder)
    blocks = {tuple(map(int, key.split(".")[1:3])) for key in theirs if ".block." in key}
    assert blocks == {(stage, i) for stage, depth in enumerate(depths, start=1) for i in range(depth)}
    spectrogram = torch.randn(2, 40, 33)
    image = (spectrogram[:, None].expand(-1, 3, -1, -1) - encoder.mean) / encoder.std
    with torch.no_grad():
        expected = torchvision_forward(theirs, image)
        assert (encoder(spectrogram) - expected).abs().max() <= 1e-4 * expected.abs().max()
    back = efficientnet.from_torchvision(theirs, encoder)
    assert back.keys() == encoder.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in encoder.state_dict().items())


def test_other_sizes_survive_the_round_trip(tmp_path):
    torch.manual_seed(0)
    frontend = LogMelSpectrogram(n_fft=1024, hop_length=256, n_mels=40)
    model = EmbeddingModel(
        frontend, lively(EfficientNet(embedding_dim=24)), 44100, level="peak", level_in_forward=False
    ).eval()
    singer_identity.save_published(model, tmp_path / "mine")
    again = load_model("mine", source=tmp_path)
    clips = 0.1 * torch.randn(2, 9000)
    with torch.no_grad():
        assert torch.equal(again(clips), model(clips))


def changed(source, tmp_path, section, **values):
    """A copy of the published model whose hyperparameters say something else."""
    folder = tmp_path / "changed"
    folder.mkdir()
    hyperparams = yaml.safe_load((source / "byol/hyperparams.yaml").read_text())
    hyperparams[section].update(values)
    (folder / "hyperparams.yaml").write_text(yaml.safe_dump(hyperparams))
    (folder / "model.pt").symlink_to(source / "byol/model.pt")
    return folder


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("feature_extractor", {"spec_layer": "stft"}, "unknown spec_layer 'stft'"),
        ("feature_extractor", {"n_mels": 64}, "mel bank"),
        ("feature_extractor", {"n_fft": "2048"}, "n_fft is '2048'"),
        ("feature_extractor", {"window": "hann"}, "unknown key 'window'"),
        ("encoder", {"backbone": "resnet50"}, "unknown backbone 'resnet50'"),
        (
            "encoder",
            {"embedding_dim": 512},
            r"2 shapes that differ .*classifier.1.bias: file \(1000,\), model \(512,\)",
        ),
        ("encoder", {"backbone": "efficientnet_b4"}, r"keys missing \(.*\.\.\.\).*shapes that differ"),
    ],
)
def test_hyperparameters_that_cannot_be_are_named(source, tmp_path, section, values, words):
    with pytest.raises(InputError, match=words) as caught:
        load_model(changed(source, tmp_path, section, **values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "entries",
    [{5: torch.zeros(1)}, {"encoder.net.2.classifier.1.bias": [1, 2]}, {"feature_extractor.spec_layer.mel_basis": 3}],
)
def test_entries_that_are_no_tensors_are_named(source, tmp_path, entries):
    weights = torch.load(source / "byol" / "model.pt") | entries
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "hyperparams.yaml").write_bytes((source / "byol" / "hyperparams.yaml").read_bytes())
    torch.save(weights, tmp_path / "m" / "model.pt")
    with pytest.raises(InputError, match=r"tensor|does not have"):
        load_model("m", source=tmp_path)


def test_half_precision_weights_load(source, tmp_path):
    weights = torch.load(source / "byol" / "model.pt")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "hyperparams.yaml").write_bytes((source / "byol" / "hyperparams.yaml").read_bytes())
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in weights.items()}, tmp_path / "m" / "model.pt")
    model, full = load_model("m", source=tmp_path), load_model("byol", source=source)
    assert torch.equal(model.encoder.classifier[1].weight, full.encoder.classifier[1].weight.half().float())


def test_pretrained_in_the_file_downloads_nothing(source, tmp_path, monkeypatch):
    monkeypatch.setattr(
        efficientnet, "IMAGENET_URLS", dict.fromkeys(efficientnet.IMAGENET_URLS, "http://127.0.0.1:9/x-0.pth")
    )
    load_model(changed(source, tmp_path, "encoder", pretrained=True))


class Payload:
    def __reduce__(self):
        return print, ("this must never be printed",)


@pytest.mark.parametrize("protocol", ["torch", "plain pickle"])
def test_a_pickle_that_wants_to_run_code_is_refused(source, tmp_path, capfd, protocol):
    folder = changed(source, tmp_path, "encoder")
    (folder / "model.pt").unlink()
    if protocol == "torch":
        torch.save({"state": Payload()}, folder / "model.pt")
    else:
        (folder / "model.pt").write_bytes(pickle.dumps({"state": Payload()}))
    with pytest.raises(InputError, match="refused, because reading it would run code"):
        load_model(folder)
    assert "never" not in capfd.readouterr().out


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_truncated_weights_are_named(source, tmp_path, keep):
    folder = changed(source, tmp_path, "encoder")
    whole = (source / "byol/model.pt").read_bytes()
    (folder / "model.pt").unlink()
    (folder / "model.pt").write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])
    with pytest.raises(InputError, match=r"model\.pt: .*damaged"):
        load_model(folder)


def test_what_the_layout_cannot_say_is_refused():
    efficientnet, rate = partial(EfficientNet, embedding_dim=4), 44100
    cases = [
        (
            EmbeddingModel(LogMelSpectrogram(), CompactCNN([4])),
            "efficientnet_b0, efficientnet_b4, efficientnet_b0_att only, not CompactCNN",
        ),
        (EmbeddingModel(LogMelSpectrogram(16000), efficientnet(), rate), "sample_rate = 16000"),
        (EmbeddingModel(LogMelSpectrogram(normalize="band"), efficientnet(), rate), "normalize = 'band'"),
        (EmbeddingModel(LogMelSpectrogram(), efficientnet(), 16000, level="peak"), "44100 Hz only"),
        (EmbeddingModel(LogMelSpectrogram(), efficientnet(), rate), "a peak of 1"),
    ]
    for model, words in cases:
        with pytest.raises(InputError, match=words):
            singer_identity.published_hyperparams(model)


@pytest.fixture
def weight_server(tmp_path, monkeypatch):
    """`serve(bytes, hash8) -> url` on the loopback address; torch's hub folder is empty."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch hub"))

    def serve(content, digest):
        name = f"efficientnet_b0_test-{digest}.pth"
        (folder / name).write_bytes(content)
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        monkeypatch.setitem(efficientnet.IMAGENET_URLS, "efficientnet_b0", url)
        return url

    yield serve
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A file as torchvision publishes them, with 1000 classes, and its content."""
    torch.manual_seed(5)
    encoder = lively(EfficientNet())
    path = tmp_path_factory.mktemp("imagenet") / "weights.pth"
    torch.save(efficientnet.to_torchvision(encoder.state_dict(), encoder), path)
    return path.read_bytes(), encoder.state_dict()


def test_pretrained_fetches_checks_and_caches(weight_server, imagenet, monkeypatch):
    content, expected = imagenet
    weight_server(content, hashlib.sha256(content).hexdigest()[:8])
    encoder = EfficientNet(pretrained=True)
    assert all(torch.equal(value, expected[key]) for key, value in encoder.state_dict().items())
    name = efficientnet.IMAGENET_URLS["efficientnet_b0"].rpartition("/")[2]
    monkeypatch.setitem(efficientnet.IMAGENET_URLS, "efficientnet_b0", f"http://127.0.0.1:9/{name}")
    smaller = EfficientNet(embedding_dim=16, pretrained=True)
    assert torch.equal(smaller.net._conv_head.weight, expected["net._conv_head.weight"])
    assert smaller.classifier[1].weight.shape == (16, 1280)


def test_pretrained_refuses_what_does_not_match_its_checksum(weight_server, imagenet):
    weight_server(imagenet[0], "00000000")
    with pytest.raises(InputError, match=r"damaged.*try again"):
        EfficientNet(pretrained=True)


def test_pretrained_without_a_connection_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setitem(
        efficientnet.IMAGENET_URLS, "efficientnet_b0", "http://127.0.0.1:9/efficientnet_b0-7f5810bc.pth"
    )
    with pytest.raises(InputError, match=r"cannot fetch.*pretrained: false"):
        EfficientNet(pretrained=True)
