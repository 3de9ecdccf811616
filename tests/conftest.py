"""What several test files need: the shared recordings, where they are, small recordings made on the spot, a browser;
and the line at the end of a run that says what was not tested, because something is absent."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from helpers import ABSENT, REPOSITORY, needed, skip_without, tone
from hypothesis import HealthCheck, settings

# What passed once passes again, and on a slow machine too. For other examples: --hypothesis-profile default
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")

# Before anything reads them: hubs and weights are on the loopback address here, behind no proxy, and a job of a cluster
# in which the tests run is none of theirs.
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *(name for name in os.environ if name.startswith("SLURM_"))):
    os.environ.pop(name, None)
# Numba's OpenMP threads would stay after the first UMAP and make each matrix product of torch wait for them.
os.environ["NUMBA_NUM_THREADS"] = "1"
for name in ("NO_PROXY", "no_proxy"):
    os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost")))


@pytest.hookimpl(tryfirst=True)  # before pytest selects by `-m`
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks for the fixture `shared` or `browser` has the marker."""
    for item in items:
        for fixture, marker in (("shared", "shared"), ("browser", "page")):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many tests were skipped because something is absent here, and what."""
    reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])]
    names = [re.match(rf"(?:{ABSENT}|could not import ')([^':]+)", reason) for reason in reasons]
    absent = Counter(name[1] for name in names if name)
    if absent:
        listed = ", ".join(f"{count} without {what}" for what, count in absent.most_common())
        terminalreporter.write_line(f"{absent.total()} skipped for what is absent here: {listed}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, default=3, metavar="N", help="damaged files of each kind in tests/fuzz (3)")


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> int:
    """How many damaged files of each kind are tried."""
    return request.config.getoption("--fuzz")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a run of the tests remembers of folders goes where the run itself goes, not to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_AUDIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared recordings and fixtures beside the repository; tests that need it skip without it."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        skip_without("the recordings (../shared beside the repository)")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, driven by playwright; its microphone beeps."""
    playwright = needed("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None) or skip_without("Chromium")
    microphone = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", *microphone])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def write_tone() -> Callable[..., Path]:
    """`write_tone(path, **arguments of tone)` writes a tone and returns the path."""

    def write(path: Path, **kwargs) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(**kwargs), kwargs.get("sample_rate", 16000))
        return path

    return write


@pytest.fixture
def singers(tmp_path: Path, write_tone: Callable[..., Path]) -> Path:
    """A data set folder of 5 singers with 4 recordings of 1 s at 16 kHz each."""
    folder = tmp_path / "singers"
    for singer in range(5):
        for song in range(4):
            path = folder / f"singer {singer}" / f"song{song}.wav"
            write_tone(path, frequency=110.0 * (1 + singer) + song, seed=10 * singer + song)
    return folder
