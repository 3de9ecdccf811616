"""The page of examples/browser in a real browser: its numbers are those of PyTorch on the same files."""

import base64
import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from helpers import REPOSITORY, skip_without

from ssl_audio import audio, compare, encoders
from ssl_audio.cli import main
from ssl_audio.downstream.tags import tag_file, write_json
from ssl_audio.embedding import embed_files
from ssl_audio.evaluation.calibration import Calibration
from ssl_audio.evaluation.false_accepts import fit_false_accepts
from ssl_audio.evaluation.model_calibration import ModelCalibration
from ssl_audio.frontends import LogMelSpectrogram, Waveform
from ssl_audio.heads import ProbeHead
from ssl_audio.hub.saved import save_model
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint

SOURCE = REPOSITORY / "examples" / "browser"
TAGS = ["guitar", "drums", "voice", "piano", "a name of a tag that is <b>longer</b> than a phone is wide", *"fghijklm"]
WINDOW = 1.5
# The page has a policy of its own; sent as a header it also holds in the worker: no eval, nothing from elsewhere.
POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; style-src 'self'; img-src data:"


class Handler(http.server.SimpleHTTPRequestHandler):
    def end_headers(self):
        self.send_header("Content-Security-Policy", f"{POLICY}; worker-src 'self'; media-src blob:")
        super().end_headers()

    def log_message(self, *args):
        pass


def song(seconds, sample_rate, pitch):
    """(samples, 2): gliding harmonics left, swelling pink noise right."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    glide = sum(np.sin(2 * np.pi * k * pitch * time * (1 + 0.1 * time)) / k for k in range(1, 9))
    white = np.fft.rfft(np.random.default_rng(round(pitch)).standard_normal(len(time)))
    noise = np.fft.irfft(white / np.sqrt(np.arange(1, len(white) + 1)), len(time))
    left, right = 0.2 * glide * np.sin(1.7 * time) ** 2, 0.3 * noise / np.abs(noise).max() * np.sin(0.3 * time) ** 4
    return np.stack([left, right], axis=1)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    soundfile.write(folder / "a.wav", song(7.3, 44100, 220), 44100, "PCM_24")
    soundfile.write(folder / "a.flac", song(7.3, 44100, 220), 44100)
    soundfile.write(folder / "b.wav", song(5.0, 48000, 330), 48000)
    cut = np.clip(40 * song(1.4, 44100, 190).mean(axis=1), -0.7, 0.7)
    soundfile.write(folder / "cut.wav", cut, 44100)
    soundfile.write(folder / "short.wav", song(0.7, 44100, 150), 44100)
    (folder / "no audio.mp3").write_bytes(b"this is not a song" * 100)
    return folder


@pytest.fixture(scope="module")
def tagger(songs):
    """SampleCNN at 22,050 Hz under a head whose tags differ from clip to clip."""
    torch.manual_seed(0)
    head = ProbeHead(16, TAGS, multi_label=True, clip_seconds=WINDOW)
    model = EmbeddingModel(Waveform(), encoders.SampleCNN(channels=[8, 8, 8, 8, 16]), 22050, head)
    settle(model, songs)
    head.standardize(model.encoder(clips(model, songs)))
    return model


@pytest.fixture(scope="module")
def voices(songs):
    """CompactCNN on mel spectrograms at 16,000 Hz; the page sets the level, because the graph does not."""
    torch.manual_seed(0)
    mel = LogMelSpectrogram(16000, n_fft=512, hop_length=160, n_mels=32, log_offset=1e-2, normalize="clip_mean")
    encoder = encoders.CompactCNN([8, 8], 16, normalize=True)
    return settle(EmbeddingModel(mel, encoder, 16000, level="peak", level_in_forward=False), songs)


def calibrated(model, name):
    """The model with a calibration whose every part matters: lengths, refits, and ("normalised") a cohort."""
    other = model.with_parts()
    rng = np.random.default_rng(0)
    cohort = rng.standard_normal((12, 16)).astype(np.float32) if name == "normalised" else None
    scale = 2.0 if cohort is None else 0.4
    line = np.array([scale, -0.3, 0.5, -0.7, 0.2])
    calibration = ModelCalibration(
        line=Calibration(line[0], line[1], tuple(line[2:].tolist())),
        false_accepts=fit_false_accepts(rng.normal(0.4, 0.6 if cohort is None else 3, 4000), rng.normal(0, 1, 4000)),
        refits=line + 0.1 * rng.standard_normal((60, 5)),
        score_range=(-8.0, 8.0),
        length_range=(1.0, 1.3),
        uses_length=True,
        normalization=None if cohort is None else "as",
        cohort=cohort,
        facts={"model": fingerprint(other)},
    )
    other.calibration = calibration
    return other


def clips(model, songs):
    """Pieces of two songs: (6, samples)."""
    samples = round(WINDOW * model.sample_rate)
    pieces = [audio.read(songs / name, model.sample_rate)[: 3 * samples] for name in ("a.wav", "b.wav")]
    return torch.from_numpy(np.concatenate(pieces).reshape(6, samples))


def settle(model, songs):
    """Running statistics of real audio, so that the outputs depend on it."""
    model.train()
    with torch.no_grad():
        for _ in range(40):
            model.encoder(model.frontend(clips(model, songs)))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def site(tmp_path_factory, tagger, voices):
    """The page, onnxruntime-web as pinned, and models exported by the command, served on the loopback address."""
    folder = tmp_path_factory.mktemp("site") / "browser"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("node_modules", "static", "model"))
    put_runtime(folder)
    for name, model in [
        ("tags", tagger),
        ("voices", voices),
        *((n, calibrated(voices, n)) for n in ("plain", "normalised")),
    ]:
        save_model(model, folder.parent / name)
        output = folder / "model" / name / "model.onnx"
        command = ["export", "--model", folder.parent / name, "--format", "onnx", "--output", output]
        assert main([str(word) for word in command]) == 0
    facts = json.loads((folder / "model" / "tags" / "model.json").read_text())
    (folder / "model" / "tags" / "genre.json").write_text(json.dumps({**facts, "activation": "softmax"}))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def put_runtime(folder):
    """static/ as the build makes it; what was built in the repository is taken if it is the pinned version."""
    version = json.loads((SOURCE / "package.json").read_text())["dependencies"]["onnxruntime-web"]
    built = SOURCE / "static" / "ort.wasm.min.mjs"
    if built.exists() and f"v{version}" in built.read_text()[:200]:
        shutil.copytree(built.parent, folder / "static")
        return
    if shutil.which("npm") is None:
        skip_without("npm, which installs onnxruntime-web")
    install = ["npm", "ci", "--prefer-offline", "--fetch-retries=0", "--fetch-timeout=60000"]
    try:
        installed = subprocess.run(install, cwd=folder, capture_output=True, timeout=300).returncode == 0
    except subprocess.TimeoutExpired:  # a network that swallows what is asked of it
        installed = False
    if not installed:
        skip_without("onnxruntime-web, which npm finds neither in its cache nor in a network")
    subprocess.run(["npm", "run", "build"], cwd=folder, capture_output=True, check=True, timeout=120)
    shutil.rmtree(folder / "node_modules")


@pytest.fixture(scope="module")
def pages(browser):
    """Open pages by model and width, because loading onnxruntime takes seconds."""
    return {}


@pytest.fixture
def open_page(browser, site, pages):
    """`open_page("tags/model.json")`: the page with that model. Nothing may fail, no request may leave the server."""
    opened = []

    def open_one(model, width=1000, window_milliseconds=0):
        key = (model, width, window_milliseconds)
        if key not in pages:
            page = pages[key] = browser.new_page(viewport={"width": width, "height": 640})
            if window_milliseconds:
                page.route("**/worker.js", functools.partial(slow_worker, window_milliseconds))
            page.set_default_timeout(120_000)
            page.requests, page.problems = [], []
            page.on("request", lambda request: page.requests.append(request.url))
            page.on("pageerror", lambda error: page.problems.append(str(error)))
            page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
            page.goto(f"{site}?model=model/{model}")
            page.wait_for_selector(".recording")
        opened.append(pages[key])
        return opened[-1]

    yield open_one
    for page in opened:
        assert page.problems == []
        assert all(url.startswith((site, f"blob:{site}", "data:")) for url in page.requests)
        assert any(url.endswith(".wasm") for url in page.requests)


def slow_worker(milliseconds, route):
    """Answer with the worker that rests so long before each window: an analysis takes as long as a test needs."""
    rest = "setTimeout(done)"
    source = (SOURCE / "worker.js").read_text()
    assert source.count(rest) == 1
    route.fulfill(body=source.replace(rest, f"setTimeout(done, {milliseconds})"), content_type="text/javascript")


def give(page, path, nth=0):
    page.locator("input[type=file]").nth(nth).set_input_files(path)
    said(page, f"{path.name}: done", nth)


def said(page, text, nth=0):
    condition = "([text, nth]) => document.querySelectorAll('.status')[nth].textContent.startsWith(text)"
    page.wait_for_function(condition, arg=[text, nth])


def saved_tags(page):
    """What the page saves, and its list of the whole recording."""
    with page.expect_download() as download:
        page.click("#save")
    saved = json.loads(Path(download.value.path()).read_text())
    if page.get_attribute("#all", "aria-pressed") == "false":
        page.click("#all")
    return saved, [row.split("\n") for row in page.locator("#whole li").all_inner_texts()]


def scores(saved):
    return np.array([clip["scores"] for clip in saved["clips"]])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "short.wav"])
def test_tags_are_those_of_pytorch(name, open_page, tagger, songs, tmp_path):
    page = open_page("tags/model.json")
    give(page, songs / name)
    saved, rows = saved_tags(page)
    tags = tag_file(tagger, songs / name, device="cpu")
    assert len(tags.scores) == (1 if name == "short.wav" else 5)
    assert len(tags.scores) == 1 or tags.scores.std(axis=0).max() > 0.1  # the tags do depend on the audio
    np.testing.assert_allclose(scores(saved), tags.scores, atol=1e-3)
    np.testing.assert_allclose(list(saved["mean"].values()), tags.means, atol=1e-3)
    times = [[clip["start"], clip["end"]] for clip in saved["clips"]]
    np.testing.assert_allclose(times, tags.times, atol=1e-3)
    write_json(tmp_path / "tags.json", tags)  # the page's is laid out as the command's
    written = json.loads((tmp_path / "tags.json").read_text())
    assert saved.keys() == written.keys() and saved["tags"] == list(saved["mean"]) == written["tags"]
    best = sorted(saved["mean"].items(), key=lambda item: -item[1])
    assert [(row[0], row[-1]) for row in rows] == [(tag, f"{100 * mean:.1f} %") for tag, mean in best]
    # what is heard is the file
    assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(
        audio.info(songs / name).seconds, 1e-3
    )


def test_one_class_a_clip_is_a_softmax(open_page, tagger, songs):
    page = open_page("tags/genre.json")
    give(page, songs / "b.wav")
    saved, _ = saved_tags(page)
    clips = embed_files(tagger, [songs / "b.wav"], window_seconds=WINDOW)
    expected = torch.from_numpy(np.stack([clip.embedding for clip in clips])).softmax(dim=1)
    np.testing.assert_allclose(scores(saved), expected, atol=1e-3)
    assert not saved["multi_label"] and sum(saved["mean"].values()) == pytest.approx(1, abs=1e-5)


def test_two_voices_have_the_cosine_of_pytorch(open_page, voices, songs):
    page = open_page("voices/model.json")
    give(page, songs / "a.flac", 0)
    assert page.inner_text("#cosine") == "Give both recordings."
    give(page, songs / "b.wav", 1)
    pair = [
        next(embed_files(voices, [songs / name], window_seconds=3.0, aggregate="mean")).embedding
        for name in ("a.flac", "b.wav")
    ]
    expected = pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])
    assert abs(expected) < 0.98  # 1 would be no test
    assert float(page.inner_text("#cosine")) == pytest.approx(expected, abs=1e-3)
    give(page, songs / "a.wav", 1)
    assert float(page.inner_text("#cosine")) > 0.999


@pytest.mark.parametrize("name", ["plain", "normalised"])
def test_a_calibrated_model_gives_the_probability_of_compare(name, open_page, voices, songs, tmp_path):
    page = open_page(f"{name}/model.json")
    pair = songs / "short.wav", songs / "cut.wav"
    for nth, path in enumerate(pair):
        give(page, path, nth)
    page.fill("#prior", "0.2")
    found = compare(*pair, calibrated(voices, name), prior=0.2)
    assert float(page.inner_text("#cosine")) == pytest.approx(found.score, abs=2e-3)
    answer, note = page.inner_text("#answer"), page.inner_text("#llr")
    shown = [float(x) for x in re.findall(r"[\d.]+", answer)]
    assert shown == pytest.approx([found.probability, *found.probability_interval], abs=3e-3)
    assert 0.01 < found.probability < 0.99  # the ends would be no test
    ratio, low, high, rate = (float(x) for x in re.findall(r"-?\d+\.?\d*", note)[:4])
    assert (ratio, low, high) == pytest.approx((found.llr, *found.llr_interval), abs=0.03)
    assert rate / 100 == pytest.approx(found.false_accept, rel=0.1)
    warned = page.locator("#warnings li").all_inner_texts()
    assert any("cut.wav is clipped" in warning for warning in found.warnings)
    assert warned == ["short.wav is short: 0.70 s", "cut.wav is clipped"]
    give(page, pair[0], 1)
    assert "both hold the same audio" in page.locator("#warnings li").all_inner_texts()


def test_without_a_calibration_no_probability_is_given(open_page, songs):
    page = open_page("voices/model.json")
    give(page, songs / "short.wav", 0)
    give(page, songs / "cut.wav", 1)
    assert page.locator("#decision").is_hidden() and page.locator("#uncalibrated").is_visible()


def test_playing_moves_the_tags_along(open_page, songs):
    page = open_page("tags/model.json")
    give(page, songs / "a.wav")
    page.evaluate("document.querySelector('audio').currentTime = 3.2")
    page.wait_for_function("() => document.querySelector('#now-title').textContent === 'At 0:03 to 0:04'")
    box = page.locator("#taggram").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 3, box["y"] + 20)
    page.wait_for_function("() => document.querySelector('#now-title').textContent === 'At 0:05 to 0:07'")
    assert page.get_attribute("#taggram", "aria-label").startswith("Tags over time, 0:07 long: ")


def test_long_files_show_progress_and_can_be_cancelled_by_keyboard(open_page, songs, tmp_path):
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros((1800 * 8000, 1), np.float32), 8000)
    page = open_page("tags/model.json", window_milliseconds=100)  # two minutes, however fast the machine
    page.locator("input[type=file]").set_input_files(long)
    page.wait_for_function("() => document.querySelector('progress').value > 0")
    page.focus(".cancel")
    page.keyboard.press("Enter")
    said(page, "long.wav: cancelled")
    assert page.locator("progress").is_hidden() and page.evaluate("document.querySelector('progress').value") < 1
    give(page, songs / "short.wav")  # and the page goes on
    page.locator("input[type=file]").set_input_files(songs / "no audio.mp3")
    said(page, "no audio.mp3: this browser cannot decode it")


def test_a_file_can_be_dropped(open_page, songs):
    page = open_page("tags/model.json")
    data = base64.b64encode((songs / "short.wav").read_bytes()).decode()
    transfer = page.evaluate_handle(
        """data => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], "dropped.wav"));
            return transfer;
        }""",
        data,
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})
    said(page, "dropped.wav: done, 1 window")


def test_the_microphone_is_tagged_while_it_records_and_heard_afterwards(open_page):
    page = open_page("tags/model.json")
    page.focus(".microphone")
    page.keyboard.press("Enter")
    said(page, "Recording: ")
    page.wait_for_selector("#now li")
    page.keyboard.press("Enter")
    said(page, "microphone.wav: done")
    assert page.evaluate("document.querySelector('audio').duration") > WINDOW
    found = scores(saved_tags(page)[0])
    assert ((found >= 0) & (found <= 1)).all() and len(found)


@pytest.mark.parametrize("model", ["tags/model.json", "voices/model.json"])
def test_a_phone_needs_no_sideways_scrolling(model, open_page, songs):
    page = open_page(model, width=360)
    give(page, songs / "short.wav")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    unnamed = "[...document.querySelectorAll('input, audio, progress')].filter(item => !item.ariaLabel).length"
    assert page.evaluate(unnamed) == 0


def test_the_page_reads_and_resamples_as_python_does(open_page, tmp_path):
    page = open_page("tags/model.json")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (5999, 3)).astype(np.float32)

    def evaluate(body, **arguments):
        return page.evaluate(f"async (given) => {{ const page = await import('./audio.js'); {body} }}", arguments)

    for subtype in ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]:
        for form in ["WAV", "WAVEX"]:
            soundfile.write(tmp_path / "x.wav", noise, 11025, subtype, format=form)
            read = """const bytes = Uint8Array.from(atob(given.data), letter => letter.charCodeAt(0));
                const source = await page.wavSource(new File([bytes], "x.wav"));
                return [source.rate, source.frames, ...await source.read(0, source.frames)];"""
            rate, frames, *got = evaluate(read, data=base64.b64encode((tmp_path / "x.wav").read_bytes()).decode())
            assert (rate, frames) == (11025, 5999)
            np.testing.assert_allclose(got, audio.read(tmp_path / "x.wav"), atol=1e-6)
    for name, rate in [("x.flac", 44100), ("x.flac", 96000), ("x.ogg", 22050), ("x.mp3", 16000), ("x.mp3", 48000)]:
        soundfile.write(tmp_path / name, noise[:, :2], rate)
        sniff = "return page.rateOf(Uint8Array.from(atob(given.data), letter => letter.charCodeAt(0)));"
        assert evaluate(sniff, data=base64.b64encode((tmp_path / name).read_bytes()).decode()) == rate
    for old, new in [(44100, 22050), (44100, 16000), (48000, 44100), (8000, 22050)]:
        resample = """const resampler = new page.Resampler(given.old, given.new);
            const source = page.samplesSource(Float32Array.from(given.samples), given.old);
            const half = resampler.length(source.frames) >> 1;
            const rest = resampler.length(source.frames) - half;
            return [...await resampler.read(source, 0, half), ...await resampler.read(source, half, rest)];"""
        got = np.array(evaluate(resample, old=old, new=new, samples=noise[:, 0].tolist()))
        expected = soxr.resample(noise[:, 0], old, new, quality="HQ")
        assert got.shape == expected.shape
        assert np.linalg.norm(got - expected) < 2e-3 * np.linalg.norm(expected)  # white noise, so all in the edges
