"""The package's promises to someone who installs it."""

import os
import re
import subprocess
import sys
import zipfile

import yaml
from helpers import REPOSITORY, needed

import ssl_audio

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = needed("tomli")

ROOT = REPOSITORY


def test_conda_environment_agrees_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    expected = {*project["dependencies"], *(r for name in extras if name not in ("dev", "docs") for r in extras[name])}
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert set(pip) - {"-e ."} == expected


def test_the_lowest_versions_that_are_tried_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    tried_extras = re.search(r"^LOWEST := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert tried_extras is not None
    requirements = [*project["dependencies"], *(r for name in tried_extras[1].split(",") for r in extras[name])]
    lowest = {re.sub(r"\[.*?\]", "", r).split(",")[0].replace(">=", "==") for r in requirements}
    tried = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    assert lowest == {line for line in tried if not line.startswith("#")}


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == ssl_audio.__version__
    assert len([entry for entry in citation["references"] if "repository-code" in entry]) == 5  # the systems


def test_constraints_pin_torch_and_cover_every_requirement():
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    names = {r.split(">=")[0].split("[")[0].lower().replace("_", "-") for r in requirements}
    assert names - pinned == set()


def test_the_gpl_library_is_in_the_training_extra_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    homes = {name for name, rs in project["optional-dependencies"].items() if any("parselmouth" in r for r in rs)}
    assert homes == {"train"} and not any("parselmouth" in r for r in project["dependencies"])


def test_importing_the_package_and_loading_models_needs_no_training_library():
    heavy = ["pytorch_lightning", "jsonargparse", "sklearn", "pandas", "matplotlib", "audiomentations", "parselmouth"]
    code = f"import ssl_audio, sys; ssl_audio.load_model; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_wheel_carries_configs_and_metadata_and_finds_them(tmp_path):
    """Built without network: hatchling is in the environment. Unpacked, it is used from an empty folder."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(installed)
    empty.mkdir()
    patterns = ("train_configs/**/*.*", "metadata/README.md", "metadata/example/*.*", "metadata/[lp]*/*")
    names = {path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern)}
    assert len(names) > 60
    for name in names:
        assert (installed / "ssl_audio" / name).read_bytes() == (ROOT / name).read_bytes(), name
    assert (installed / "ssl_audio" / "py.typed").is_file()
    code = (
        "from ssl_audio.data.corpora import gtzan; from ssl_audio.training.config import find_config; "
        "from ssl_audio.utils.packaged import packaged; "
        "print(gtzan.GENRES[0], find_config('data/gtzan'), packaged('metadata'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=empty, env=environment, check=True, capture_output=True, text=True
    )
    package = installed / "ssl_audio"
    assert out.stdout.split() == ["blues", str(package / "train_configs/data/gtzan.yaml"), str(package / "metadata")]
