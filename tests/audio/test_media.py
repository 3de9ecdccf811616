"""m4a, mp4, mkv, webm, ... and the sound of videos, by files that the tests write with PyAV."""

import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import needed, tiny_model, tone

from ssl_audio import audio, media
from ssl_audio.data import scan
from ssl_audio.embedding import embed_files

av = needed("av")

RATE = 44100
# name, codec, container, rate, samples that the encoder puts before the sound and the container does not declare,
# largest difference of a part from the same part of the whole file, and of the sound itself (None: a lossy codec)
KINDS = {
    "aac.m4a": ("aac", None, RATE, 0, 5e-3, None),
    "speech.mp4": ("aac", None, 16000, 0, 5e-3, None),
    "alac.m4a": ("alac", None, RATE, 0, 0, 1e-4),
    "adts.aac": ("aac", "adts", RATE, 1024, 5e-3, None),
    "aac.mkv": ("aac", None, RATE, 0, 5e-3, None),
    "opus.webm": ("libopus", None, 48000, 0, 1e-2, None),
    "opus.mp4": ("libopus", None, 48000, 0, 1e-2, None),
    "pcm.mov": ("pcm_s16le", None, RATE, 0, 0, 1e-4),
    "flac.mka": ("flac", None, RATE, 0, 0, 1e-4),
    "wavpack.wv": ("wavpack", None, RATE, 0, 0, 0.01),
    "tta.tta": ("tta", None, RATE, 0, 0, 0.01),
    "mp3.avi": ("mp3", None, RATE, 1105, 0, None),
}


def chirp(samples: int, rate: int) -> np.ndarray:
    """A rising tone, so that no two places are alike."""
    time = np.arange(samples) / rate
    return (0.5 * np.sin(2 * np.pi * (100 * time + 200 * time**2))).astype(np.float32)


def encode(path: Path, clip: np.ndarray, codec: str, container: str | None, rate: int, video: bool = False) -> None:
    """Write `(samples,)` or `(channels, samples)`."""
    clip = np.atleast_2d(clip)
    layout = {1: "mono", 2: "stereo"}[len(clip)]
    with av.open(str(path), "w", format=container) as output:
        if video:
            picture = output.add_stream("mpeg4", rate=25, width=64, height=48, pix_fmt="yuv420p")
        stream = output.add_stream(codec, rate=rate, layout=layout)
        if video:
            for image in range(50):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * image, np.uint8), format="rgb24")
                output.mux(picture.encode(frame))
            output.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(clip), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


@pytest.mark.parametrize("name", KINDS)
def test_a_part_is_the_part_of_the_whole_and_the_sound_that_was_written(name, tmp_path):
    codec, container, rate, before, tolerance, loss = KINDS[name]
    clip = chirp(5 * rate + 37, rate)
    encode(tmp_path / name, clip, codec, container, rate)
    with audio.AudioFile(tmp_path / name) as file:
        whole = file.read()
        assert file.info.sample_rate == rate and len(whole) == file.info.frames
        assert len(clip) <= len(whole) < len(clip) + before + 2048
        if loss is None:  # at its place, to the sample
            lags = range(-20, 21)
            products = [np.dot(whole[before + 20000 + lag :][:30000], clip[20000:50000]) for lag in lags]
            assert lags[int(np.argmax(products))] == 0
            assert np.corrcoef(whole[before + 20000 :][:30000], clip[20000:50000])[0, 1] > 0.99
        else:
            np.testing.assert_allclose(whole[: len(clip)], clip, rtol=0, atol=loss)
        places = np.random.default_rng(0).integers(0, len(whole) - 4000, 9)
        for start in (0, 1, 1024, 8193, 48001, len(whole) - 3000, *places):
            part = file.read(int(start), 4000)
            np.testing.assert_allclose(part, whole[start:][:4000], rtol=0, atol=tolerance, err_msg=str(start))
        np.testing.assert_allclose(  # also at another rate, where the resampler needs the samples around the part
            file.read(8000, 4000, 16000), audio.resample(whole, rate, 16000)[8000:12000], rtol=0, atol=tolerance + 1e-6
        )


def test_channels_are_mixed_and_a_video_gives_its_sound(tmp_path):
    left, right = chirp(2 * RATE, RATE), 0.25 * chirp(2 * RATE, RATE)[::-1]
    encode(tmp_path / "a.m4a", np.stack([left, right]), "alac", None, RATE)
    np.testing.assert_allclose(audio.read(tmp_path / "a.m4a"), (left + right) / 2, atol=1e-4)
    encode(tmp_path / "film.mp4", left, "alac", None, RATE, video=True)
    np.testing.assert_allclose(audio.read(tmp_path / "film.mp4"), left, atol=1e-4)
    assert audio.info(tmp_path / "film.mp4").format == "MOV/ALAC"


def test_the_content_decides_and_not_the_suffix(tmp_path):
    encode(tmp_path / "a.m4a", chirp(RATE, RATE), "alac", None, RATE)
    shutil.copy(tmp_path / "a.m4a", tmp_path / "a.wav")
    np.testing.assert_array_equal(audio.read(tmp_path / "a.wav"), audio.read(tmp_path / "a.m4a"))
    soundfile.write(tmp_path / "b.flac", tone(), 16000)
    shutil.copy(tmp_path / "b.flac", tmp_path / "b.m4a")
    np.testing.assert_array_equal(audio.read(tmp_path / "b.m4a"), audio.read(tmp_path / "b.flac"))


def test_what_has_no_sound_or_is_damaged_is_one_line(tmp_path):
    with av.open(str(tmp_path / "silent.mp4"), "w") as output:
        stream = output.add_stream("mpeg4", rate=25, width=64, height=48, pix_fmt="yuv420p")
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(audio.AudioError, match="has no sound"):
        audio.AudioFile(tmp_path / "silent.mp4")
    encode(tmp_path / "a.m4a", chirp(RATE, RATE), "aac", None, RATE)
    (tmp_path / "half.m4a").write_bytes((tmp_path / "a.m4a").read_bytes()[:4000])
    with pytest.raises(audio.AudioError, match="cannot be opened as audio") as caught:
        audio.AudioFile(tmp_path / "half.m4a")
    assert "\n" not in str(caught.value)
    (tmp_path / "list.m4a").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n" + str(tmp_path / "a.m4a") + "\n"
    )
    with pytest.raises(audio.AudioError):  # a playlist could make FFmpeg read other files and addresses
        audio.AudioFile(tmp_path / "list.m4a")


def test_a_folder_of_them_is_scanned_and_embedded(tmp_path):
    for number in range(2):
        folder = tmp_path / f"s{number}"
        folder.mkdir()
        encode(folder / "a.m4a", chirp(RATE, RATE), "aac", None, RATE)
    encode(tmp_path / "s0" / "b.webm", chirp(48000, 48000), "libopus", None, 48000)
    facts = scan.scan_folder(tmp_path, progress=False)
    assert {fact.path: fact.problem for fact in facts} == {"s0/a.m4a": "", "s0/b.webm": "", "s1/a.m4a": ""}
    found = list(embed_files(tiny_model(), audio.find_audio_files(tmp_path)))
    assert len(found) == 3 and all(np.isfinite(item.embedding).all() for item in found)
    np.testing.assert_array_equal(found[0].embedding, found[2].embedding)


def test_without_pyav_one_line_names_the_extra(tmp_path):
    encode(tmp_path / "a.m4a", chirp(RATE, RATE), "aac", None, RATE)
    program = (
        "import sys; sys.modules['av'] = None\n"
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'av' else find(name, *rest)\n"
        "from ssl_audio import audio\n"
        "try: audio.read(sys.argv[1])\n"
        "except audio.AudioError as error: print(error)\n"
        "print('.m4a' in audio.UNSUPPORTED_EXTENSIONS, '.m4a' in audio.EXTENSIONS)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.m4a")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [f"{tmp_path / 'a.m4a'}: {audio.UNDECODABLE}", "True False"]
    assert "ssl_audio[media]" in audio.UNDECODABLE


def test_files_without_exact_times_are_counted_once(tmp_path, monkeypatch):
    encode(tmp_path / "a.mkv", chirp(RATE, RATE), "aac", None, RATE)
    audio.info(tmp_path / "a.mkv")
    before = media._layout.cache_info().misses
    for start in (0, 9000, 20000):
        audio.read(tmp_path / "a.mkv", start=start, samples=100)
    assert media._layout.cache_info().misses == before
