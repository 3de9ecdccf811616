"""Distillation: targets are those of exactly the clip, from tables and online; what cannot work is one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import tiny_frontend, tiny_model
from torch import nn

from ssl_audio import audio, load_model
from ssl_audio.cli import main, run_command
from ssl_audio.data import AudioDataModule, TaughtDataModule, WindowDataModule
from ssl_audio.encoders import CompactCNN
from ssl_audio.errors import InputError
from ssl_audio.heads import TeacherHead
from ssl_audio.hub import save_model
from ssl_audio.methods import Distillation
from ssl_audio.testing import check_method

STUDENT = {"class_path": "ssl_audio.encoders.CompactCNN", "init_args": {"channels": [4, 8], "embedding_dim": 12}}
SETTINGS = {"sample_rate": 16000, "nr_samples": 8000, "batch_size": 4, "num_workers": 0, "eval_frac": 0.2}


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A saved model at 16 kHz whose embeddings have 16 numbers."""
    save_model(tiny_model(16), tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.fixture
def table(singers: Path, teacher: Path, tmp_path: Path) -> Path:
    """Its embeddings of the singers, in windows of half a second every .3 s; each recording has three."""
    output = tmp_path / "teacher.parquet"
    words = ["embed", singers, "--model", teacher, "--output", output, "--window", 0.5, "--hop", 0.3, "--workers", 1]
    assert main([str(word) for word in words]) == 0
    return output


def rows(table: Path) -> dict[str, np.ndarray]:
    import pyarrow.parquet as pq

    read = pq.read_table(table)
    columns = {name: np.array(read[name].to_pylist()) for name in ("path", "start", "end", "embedding")}
    return {**columns, "embedding": columns["embedding"].astype(np.float32)}


def prepared(singers: Path, tables, **changes) -> TaughtDataModule:
    data = TaughtDataModule(tables, str(singers), **{**SETTINGS, **changes})
    data.setup()
    return data


def items(data, epochs: int = 1) -> list[dict]:
    dataset = data.dataset(training=True)
    sampler = data.sampler(dataset, training=True)
    found = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        found += [dataset[draw] for draw in sampler]
    return found


def test_a_target_is_what_the_teacher_says_of_exactly_the_clip(singers, teacher, table) -> None:
    for float16 in (False, True):
        found = items(prepared(singers, str(table), float16=float16), epochs=6)
        assert {item["start"] for item in found} == {0, 4800, 8000}  # the last window ends with the recording
        clips = torch.stack([item["clip1"] for item in found])
        said = load_model(teacher)(clips)
        targets = torch.stack([item["targets"] for item in found])
        torch.testing.assert_close(targets, said, rtol=0, atol=2e-3 if float16 else 1e-5)


def test_the_clip_of_a_target_is_the_same_part_at_another_rate(singers, teacher, table) -> None:
    data = prepared(singers, [str(table)], sample_rate=22050, nr_samples=11025)
    entries = data.training_entries
    for item in items(data)[:6]:
        path = entries[item["index"]].path
        part = audio.read(path, 16000, round(item["start"] / 22050 * 16000), 8000)
        said = load_model(teacher).embed(part)
        np.testing.assert_allclose(item["targets"], said, atol=1e-4)
        expected = audio.read(path, 22050)[item["start"] : item["start"] + 11025]
        np.testing.assert_allclose(item["clip1"], expected, atol=2e-2)


def test_two_teachers_lie_side_by_side_and_parts_of_a_table_are_one(singers, teacher, table, tmp_path) -> None:
    content = rows(table)
    half = len(content["path"]) // 2
    for number, part in enumerate((slice(0, half), slice(half, None))):
        np.savez(tmp_path / f"second-{number}.npz", **{name: values[part] for name, values in content.items()})
    data = prepared(singers, [str(table), str(tmp_path / "second-*.npz")])
    for item in items(data)[:5]:
        assert torch.equal(item["targets"][:16], item["targets"][16:])
    first, second = data.batch_spec.targets
    np.testing.assert_allclose(first.mean, content["embedding"].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(second.mean, first.mean, atol=1e-5)
    distances = np.linalg.norm(content["embedding"] - first.mean, axis=1)
    assert first.length == pytest.approx(np.sqrt((distances**2).mean()), rel=1e-4)
    assert len(first.fingerprint) == 16 and second.fingerprint == ""


def test_balanced_drawing_sees_rare_and_common_windows_equally_often(singers, table, tmp_path) -> None:
    """Two kinds of embeddings, one in a tenth of the recordings."""
    content = rows(table)
    rare = np.char.startswith(content["path"], "singer 0/song0") | np.char.startswith(content["path"], "singer 1/song0")
    kinds = np.where(rare[:, None], np.eye(16)[0], np.eye(16)[1]) + 1e-3 * content["embedding"]
    np.savez(tmp_path / "kinds.npz", **{**content, "embedding": kinds.astype(np.float16)})
    for clusters, low, high in ((0, 0.0, 0.2), (2, 0.3, 0.7)):
        data = prepared(singers, str(tmp_path / "kinds.npz"), eval_frac=0, multi_epoch=20, clusters=clusters)
        share = np.mean([item["targets"][0] > 0.5 for item in items(data)])
        assert low < share < high


def broken(name: str, content: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    content = {key: values.copy() for key, values in content.items()}
    if name == "nan":
        content["embedding"][7, 3] = np.nan
    elif name == "missing":
        keep = ~np.char.startswith(content["path"], "singer 1")
        content = {key: values[keep] for key, values in content.items()}
    elif name == "longer":
        content["end"] += 0.25
    elif name == "shorter":
        content["end"] -= 0.25
    elif name == "no paths":
        del content["path"]
    return content


@pytest.mark.parametrize(
    "name, message",
    [
        ("nan", r"the embedding of singer 0/song2\.wav holds NaN or infinity; embed that recording again"),
        ("missing", r"lacks 4 of \d+ recordings, the first is .*singer 1.song0\.wav; embed the folders"),
        ("longer", r"has windows of 0\.75 s, and clips have 0\.5 s, .* set data\.nr_samples to 12000"),
        ("shorter", r"has no windows of 0\.5 s, its longest has 0\.25 s; set data\.nr_samples to 4000"),
        ("no paths", r"has no path; write it with ssl-audio embed"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(singers, table, tmp_path, name, message) -> None:
    np.savez(tmp_path / "bad.npz", **broken(name, rows(table)))
    with pytest.raises(InputError, match=message) as caught:
        prepared(singers, str(tmp_path / "bad.npz"), eval_frac=0)
    assert "\n" not in str(caught.value)


def test_other_tables_that_do_not_fit(singers, table, tmp_path) -> None:
    import pyarrow.parquet as pq

    read = pq.read_table(table)
    other = {**read.schema.metadata, b"model": b"0" * 16}
    for number, metadata in enumerate((read.schema.metadata, other)):
        pq.write_table(
            read.slice(number * 30, 30).replace_schema_metadata(metadata), tmp_path / f"part{number}.parquet"
        )
    with pytest.raises(InputError, match=r"its files differ in model .*; take one teacher's"):
        prepared(singers, str(tmp_path / "part*.parquet"))
    with pytest.raises(InputError, match=r"none\.parquet: no such table; write it with ssl-audio"):
        prepared(singers, str(tmp_path / "none.parquet"))
    content = rows(table)
    late = content["start"] == 0.3
    content["start"][late] += 0.1
    content["end"][late] += 0.1
    np.savez(tmp_path / "late.npz", **content)
    with pytest.raises(InputError, match=r"late\.npz has other windows of .*song0\.wav than .*teacher\.parquet"):
        prepared(singers, [str(table), str(tmp_path / "late.npz")])
    with pytest.raises(InputError, match="more than the 48 windows"):
        prepared(singers, str(table), clusters=49)


def network(**changes) -> dict:
    torch.manual_seed(0)
    encoder = CompactCNN([4, 8], embedding_dim=12)
    return {"frontend": tiny_frontend(), "encoder": encoder, "sample_rate": 16000, **changes}


def test_an_online_teacher_hears_what_the_student_hears_at_its_own_rate_and_is_not_saved(teacher) -> None:
    class Halved(nn.Module):
        def forward(self, clips, sample_rate, generator):
            return clips / 2

    for rate in (16000, 22050):
        both = {"augmentation": Halved(), "student_augmentation": Halved()}
        frontend = tiny_frontend()
        method = Distillation(**network(sample_rate=rate, teachers=[str(teacher)], frontend=frontend), **both)
        clips = 0.1 * torch.randn(4, rate, generator=torch.Generator().manual_seed(0))
        batch = method.augmented({"clip1": clips}, 0)
        assert torch.equal(batch["clip1"], clips / 2) and torch.equal(batch["student"], clips / 4)
        (said,) = method._asked(batch["clip1"])
        resampled = np.stack([audio.resample(clip.numpy() / 2, rate, 16000) for clip in clips])
        torch.testing.assert_close(said, load_model(teacher)(torch.from_numpy(resampled)), rtol=0.02, atol=0.02)
        method.train()
        assert not method.online[0].training and not any(p.requires_grad for p in method.online[0].parameters())
        assert not any("online" in name for name in method.state_dict())
        assert method.projection.dim == 16
    check_method(method)


def test_the_head_predicts_in_the_teachers_space() -> None:
    head = TeacherHead(3, 4)
    mean = torch.tensor([3.0, -1.0, 0.5, 2.0])
    head.fit(mean, 2.5)
    out = head(torch.randn(50, 3))
    torch.testing.assert_close((out - mean).norm(dim=1), torch.full((50,), 2.5))
    target = mean + 2.5 * nn.functional.normalize(torch.randn(50, 4), dim=1)
    torch.testing.assert_close(head.in_space(7 * head.units(target)), target)  # length is left open by a cosine
    exact = TeacherHead(3, 4, hidden=5, normalize=False)
    exact.fit(mean, 2.5)
    torch.testing.assert_close(exact.in_space(exact.units(target)), target)


def test_what_cannot_teach_or_be_learnt_is_one_line(teacher, table, singers) -> None:
    def made(**changes):
        return Distillation(**network(**changes))

    with pytest.raises(InputError, match="projection must be null"):
        made(projection=lambda dim: nn.Identity())
    with pytest.raises(InputError, match=r"model\.loss_weights has 'cosin', which is none; did you mean 'cosine'"):
        made(loss_weights={"cosin": 1.0})
    with pytest.raises(InputError, match=r"model\.loss_weights\.kl is -1"):
        made(loss_weights={"kl": -1})
    with pytest.raises(InputError, match="no weight above 0"):
        made(loss_weights={"cosine": 0})
    with pytest.raises(InputError, match=r"holds embeddings of files; give its file as data\.tables"):
        made(teachers=[f"table:{table}"])
    with pytest.raises(InputError, match=r"raise data\.batch_size"):
        made(loss_weights={"kl": 1.0}).check(1, 8000)
    with pytest.raises(InputError, match=r"needs batches with targets.*TaughtDataModule with data\.tables"):
        made().check_data(WindowDataModule(str(singers)).batch_spec)
    with pytest.raises(InputError, match="scaled to a peak of 1"):
        made(teachers=[str(teacher)]).check_data(AudioDataModule(str(singers), sample_rate=16000).batch_spec)
    taught = TaughtDataModule(str(table), str(singers), **SETTINGS).batch_spec
    with pytest.raises(InputError, match="leave one of them out"):
        made(teachers=[str(teacher)]).check_data(taught)
    from ssl_audio.augmentations.batch import Compose, Gain, Speed

    with pytest.raises(InputError, match="has Speed, which a stored target does not follow"):
        made(augmentation=Compose([Gain(), Speed()])).check_data(taught)
    made(augmentation=Compose([Gain()])).check_data(taught)
    from ssl_audio.augmentations.clip import Shift

    with pytest.raises(InputError, match=r"data\.augmentation has Shift"):
        TaughtDataModule(str(table), str(singers), augmentation=Shift())
    with pytest.raises(InputError, match="this teacher has collapsed"):
        made()._fit(TeacherHead(12, 3), torch.tensor([1.0, 2.0, 3.0]), 1e-3, "t")


@pytest.fixture
def train(singers, tmp_path):
    """`train(data, model, arguments)` trains 3 epochs on tiny clips; returns the run folder."""
    runs = tmp_path / "runs"

    def run(data: dict, model: dict, *arguments: str) -> Path:
        steps = {"filename": "at-{step}", "every_n_train_steps": 1, "save_top_k": -1}
        tiny = {
            "model": {"init_args": {"encoder": STUDENT, "lr_scheduler": None, **model}},
            "data": data,
            "trainer": {"max_epochs": 3, "max_time": None, "log_every_n_steps": 1, "enable_progress_bar": False},
            "callbacks": {
                "steps": {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": steps},
            },
        }
        tiny["data"].setdefault("init_args", {}).update({**SETTINGS, "dataset_dirs": [str(singers)]})
        tiny["trainer"] |= {"accelerator": "cpu", "logger": {"init_args": {"save_dir": str(runs)}}}
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
        before = set(runs.glob("*/*"))
        stack = ["--config", "common", "--config", "distil", "--config", str(tmp_path / "tiny.yaml")]
        assert run_command("train", [*stack, *arguments]) == 0
        (folder,) = set(runs.glob("*/*")) - before
        return folder

    return run


@pytest.mark.slow
@pytest.mark.parametrize("online", [False, True])
def test_a_run_reports_and_resumes_to_the_bit(online, train, table, teacher) -> None:
    def data() -> dict:
        if online:
            return {"class_path": "ssl_audio.data.WindowDataModule"}
        return {"init_args": {"tables": [str(table)]}}

    model = {"teachers": [str(teacher)]} if online else {}
    whole = train(data(), model)
    metrics = (whole / "metrics.csv").read_text()
    assert all(name in metrics for name in ("cosine/val", "floor/val", "effective_rank/val", "kl_loss/val"))
    (step,) = [path for path in (whole / "checkpoints").glob("at-step=*.ckpt") if path.stem == "at-step=5"]
    resumed = train(data(), model, "--ckpt_path", str(step))
    first, second = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (whole, resumed)
    )
    assert (
        first.keys() == second.keys() and [name for name in first if not torch.equal(first[name], second[name])] == []
    )
    clip = torch.randn(2, 8000)
    assert load_model(whole)(clip).shape == (2, 12) and load_model(whole, projection=True)(clip).shape == (2, 16)
    assert not torch.equal(first["projection.mean"], torch.zeros(16))
    assert json.loads((whole / "run.json").read_text())
