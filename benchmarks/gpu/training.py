"""Training steps as `ssl-audio train` takes them: resident data, recordings in folders, shards.

Every step runs through the command and the stacked configs, so that a figure is of what a user gets. The data module
`Resident` hands out one batch that lies on the device; `StepTimes` takes the time and ends the run.
"""

import contextlib
import io
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
import yaml

from benchmarks.gpu.figures import Figure, Setting
from ssl_audio.cli import main
from ssl_audio.data.batch_spec import BatchSpec

GOAL_GB = 24.0
FROM_DISK = 0.9  # share of the rate on resident data that training from disk should reach
ALL_CORES = 5.0  # times the rate of the per-clip chain on all cores


class StepTimes(lightning.Callback):
    """Writes `{"seconds", "steps", "memory_gb"}` of the steps after a warm-up, then stops the training.

    Args:
        path: of the file.
        seconds: how long, about, steps are timed.
        warmup: steps before that.
        probe: steps by which it is found how many fit.
        backend: of `torch.compile`, for encoder and heads; None leaves them as they are.
    """

    def __init__(self, path: str, seconds: float, warmup: int = 5, probe: int = 3, backend: str | None = None) -> None:
        self.path, self.seconds, self.warmup, self.probe, self.backend = path, seconds, warmup, probe, backend
        self._started, self._last = 0.0, 1 << 60

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self.backend is not None:
            for name, module in pl_module.named_children():
                if name != "frontend":  # its power spectrum stays in float32, and its shapes may differ
                    module.compile(backend=self.backend)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = batch_idx + 1 - self.warmup
        if step in (0, self.probe):
            _synchronize(pl_module.device)
            now = time.perf_counter()
            if step == self.probe:
                fitting = round(self.probe * self.seconds / (now - self._started))
                self._last = max(self.probe, min(5000, fitting))
            else:
                self._started = now
                if pl_module.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
        if step >= self._last:
            _synchronize(pl_module.device)
            took = time.perf_counter() - self._started
            memory = torch.cuda.max_memory_reserved() / 1e9 if pl_module.device.type == "cuda" else None
            Path(self.path).write_text(json.dumps({"seconds": took, "steps": step, "memory_gb": memory}))
            trainer.should_stop = True


class Resident(lightning.LightningDataModule):
    """One batch of noise that lies on the device, again and again; for methods of two views and with labels.

    Args:
        sample_rate, nr_samples, batch_size, local_views: see `AudioDataModule`; short clips have half the length.
    """

    classes = tuple(f"class {i}" for i in range(10))

    def __init__(self, sample_rate: int, nr_samples: int, batch_size: int, local_views: int = 0) -> None:
        super().__init__()
        self.local = tuple(f"local{i + 1}" for i in range(local_views))
        self.sample_rate, self.nr_samples, self.batch_size = sample_rate, nr_samples, batch_size
        self._batch: dict[str, Any] = {}

    @property
    def batch_spec(self) -> BatchSpec:
        keys = ("clip1", "clip2", "clip", "target", "group_name", "index", *self.local)
        spec = BatchSpec(keys, self.batch_size, self.nr_samples, self.sample_rate, classes=self.classes)
        return replace(spec, local_samples=self.nr_samples // 2) if self.local else spec

    def train_dataloader(self) -> Any:
        return _Turns(10_000)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> dict[str, Any]:
        if not self._batch:
            generator = torch.Generator(device).manual_seed(0)
            shape = (self.batch_size, self.nr_samples)
            one, other = (0.1 * torch.randn(shape, generator=generator, device=device) for _ in range(2))
            index = torch.arange(self.batch_size, device=device)
            names = [f"singer {i}" for i in range(self.batch_size)]
            self._batch = {"clip1": one, "clip2": other, "clip": one, "target": index % len(self.classes)}
            self._batch |= {"group_name": names, "index": index}
            self._batch |= {name: one[:, : self.nr_samples // 2].clone() for name in self.local}
        return dict(self._batch)


class _Turns:
    """A loader of so many batches that are not made by it."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Any:
        return iter(range(self.count))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- one training


def resolved(*configs: str) -> dict[str, Any]:
    """The stacked config, as `ssl-audio train --print_config` says it."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        status = main(["train", *(word for name in configs for word in ("--config", name)), "--print_config"])
    if status:
        raise RuntimeError(f"the configs {', '.join(configs)} cannot be stacked")
    return yaml.safe_load(text.getvalue())


def train(setting: Setting, configs: list[str], overlay: dict[str, Any], precision: str, backend: str | None) -> dict:
    """Run `ssl-audio train` until the steps are timed; what `StepTimes` wrote, with "batch_size" and "nr_samples"."""
    names = resolved("common", *configs).get("callbacks") or {}
    result, config = setting.folder / "steps.json", setting.folder / "overlay.yaml"
    result.unlink(missing_ok=True)
    times = {"path": str(result), "seconds": setting.seconds, "backend": backend}
    times |= {"warmup": 1, "probe": 1} if setting.smoke else {}
    trainer = {"max_epochs": -1, "max_steps": 1_000_000, "precision": precision, "limit_val_batches": 0}
    trainer |= {"enable_progress_bar": False, "logger": {"init_args": {"save_dir": str(setting.folder / "runs")}}}
    callbacks: dict[str, Any] = dict.fromkeys(names)
    callbacks["step_times"] = {"class_path": f"{__name__}.StepTimes", "init_args": times}
    content = {"trainer": trainer, "callbacks": callbacks, **overlay}
    config.write_text(yaml.safe_dump(content))
    hardware = "hardware/gpu" if setting.device == "cuda" else "hardware/cpu"
    stack = ["common", *configs, hardware, str(config)]
    said = io.StringIO()
    setting.reset_memory()
    with contextlib.redirect_stderr(said):
        status = main(["train", *(word for name in stack for word in ("--config", name))])
    if status or not result.exists():
        raise RuntimeError((said.getvalue().strip().splitlines() or ["the training ended before it was timed"])[-1])
    data = resolved(*stack)["data"]["init_args"]
    return {**json.loads(result.read_text()), "batch_size": data["batch_size"], "nr_samples": data["nr_samples"]}


def resident(
    setting: Setting, method: str, precision: str, batch_size: int | None = None, seconds: float | None = None,
    backend: str | None = None, chain: str | None = None,
) -> dict:  # fmt: skip
    """Steps of a method on resident data, at the sizes of its config unless others are given."""
    configs = [method] if chain is None else [method, chain]
    data = resolved("common", *configs)["data"]["init_args"]
    sizes = {name: data[name] for name in ("sample_rate", "nr_samples", "batch_size")}
    if batch_size is not None:
        sizes["batch_size"] = batch_size
    if seconds is not None:
        sizes["nr_samples"] = round(seconds * sizes["sample_rate"])
    if setting.smoke:  # waveform encoders have a shortest clip, the mel ones take a fifth of a second
        sizes["batch_size"] = 2
        sizes["nr_samples"] = min(sizes["nr_samples"], 59049 if sizes["sample_rate"] == 22050 else 20480)
    overlay: dict[str, Any] = {"data": {"class_path": f"{__name__}.Resident", "init_args": sizes}}
    if chain is None:
        overlay["model"] = {"init_args": {"augmentation": None}}
    return train(setting, configs, overlay, precision, backend)


# --- rows


def step(
    setting: Setting, method: str, precision: str, batch_size: int | None = None, seconds: float | None = None,
    backend: str | None = None,
) -> list[Figure]:  # fmt: skip
    """Pairs (or clips) a second and peak memory of one method."""
    if backend is not None and setting.smoke:
        backend = "eager"  # the same path without a compiler
    try:
        found = resident(setting, method, precision, batch_size, seconds, backend)
    except torch.cuda.OutOfMemoryError:
        total = torch.cuda.get_device_properties(0).total_memory / 1e9
        return [Figure(f"{method}, {_sizes(batch_size, seconds)}", 0, "items/s", note=f"does not fit {total:.0f} GB")]
    rate = found["steps"] * found["batch_size"] / found["seconds"]
    took = 1e3 * found["seconds"] / found["steps"]
    note = f"{found['batch_size']} items of {found['nr_samples']} samples, {took:.1f} ms a step"
    figure = Figure(
        f"{method}, {precision}{', compiled' if backend else ''}", rate, "items/s", found["memory_gb"], note=note
    )
    if method == "contrastive" and precision == "bf16-mixed" and batch_size is None and seconds is None and not backend:
        met = None if figure.memory_gb is None or setting.smoke else figure.memory_gb <= GOAL_GB
        figure = replace(figure, goal=f"{GOAL_GB:.0f} GB", met=met)
    return [figure]


def _sizes(batch_size: int | None, seconds: float | None) -> str:
    return f"{batch_size or 'the usual'} items of {seconds or 'the usual'} s"


def from_disk(setting: Setting, what: str) -> list[Figure]:
    """The share of the resident rate that training reaches from a folder or from shards, the chain on the device.

    Args:
        what: "folder" or "shards".
    """
    there, disk = _rate(setting, "resident"), _rate(setting, what)
    share = disk / there
    return [
        Figure(f"from {what}, the published chain on the device", disk, "items/s", note=_files(setting)),
        Figure(
            f"the same, beside the step on resident data ({there:.4g} items/s)",
            100 * share,
            "%",
            goal=f"{100 * FROM_DISK:.0f} %",
            met=None if setting.smoke else share >= FROM_DISK,
            note="both with the chain on the device",
        ),
    ]


def per_clip(setting: Setting) -> list[Figure]:
    """From a folder with the chain clip by clip in the loader processes, and with it on the device."""
    slow = _rate(setting, "clip")
    times = _rate(setting, "folder") / slow
    goal = {"goal": f"{ALL_CORES:.0f} times", "met": None if setting.smoke else times >= ALL_CORES}
    return [
        Figure("from a folder, the published chain clip by clip on all cores", slow, "items/s", note=_files(setting)),
        Figure("the chain on the device, beside it", times, "times", **goal),
    ]


def _files(setting: Setting) -> str:
    return f"{setting.cores} cores; the files are in the page cache"


def _rate(setting: Setting, what: str) -> float:
    """Items a second of contrastive in bf16 with the published chain; measured once for all rows of a run.

    Args:
        what: "resident", "folder" or "shards", the chain on the device; "clip", a folder with the chain in the workers.
    """
    from benchmarks.gpu.recordings import recordings

    known = setting.folder / f"{what}.rate"
    if known.exists():
        return float(known.read_text())
    device = ["contrastive", "augmentation/device"]
    if what == "resident":
        found = resident(setting, "contrastive", "bf16-mixed", chain="augmentation/device")
    else:
        root, shards = recordings(setting, "flac"), setting.folder / "shards"
        data: dict[str, Any] = {"multi_epoch": 200, "eval_frac": 0.0, "num_workers": 1 if setting.smoke else "auto"}
        data |= {"batch_size": 2, "nr_samples": 20480} if setting.smoke else {}
        if what == "shards" and not shards.is_dir() and main(["shard", str(root), "--output", str(shards)]):
            raise RuntimeError("the shards could not be written")
        data |= {"shards": str(shards)} if what == "shards" else {"dataset_dirs": [str(root)]}
        stack = {"folder": device, "shards": ["data/shards-plain", *device], "clip": ["contrastive"]}[what]
        found = train(setting, stack, {"data": {"init_args": data}}, "bf16-mixed", None)
    rate = found["steps"] * found["batch_size"] / found["seconds"]
    known.write_text(repr(rate))
    return rate


def clean(setting: Setting) -> None:
    """Remove the run folders of what was timed."""
    import shutil

    shutil.rmtree(setting.folder / "runs", ignore_errors=True)
    os.environ.pop("PL_GLOBAL_SEED", None)
