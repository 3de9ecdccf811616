"""A training step, contrastive with EfficientNet-B0, pairs of 4 s at 44.1 kHz, on the CPU; memory of a long run.

The plain way, with the same libraries: nnAudio's mel layer, `efficientnet_pytorch` as it comes, a forward pass a view,
negatives by rolling; from disk also soundfile, audiomentations and Praat, clip by clip. Both sides run in turn, and the
fastest of several steps counts.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize
from torch.utils.data import DataLoader, Dataset

from benchmarks.bench_augmentations import CONFIGS, chain, voices
from ssl_audio import audio
from ssl_audio.config import build
from ssl_audio.data import AudioDataModule
from ssl_audio.encoders import EfficientNet
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.heads import Projection
from ssl_audio.losses import contrastive_loss
from ssl_audio.methods import Contrastive
from ssl_audio.utils.files import write_text

PAIRS, SAMPLES, REPEATS = 16, 176_400, 5


Row = tuple[str, float | None, float | None, str]


def rows() -> Iterator[Row]:
    """(what, seconds of the plain way, our seconds, note)."""
    yield from in_memory()
    with tempfile.TemporaryDirectory() as folder:
        yield from from_disk(Path(folder))
        yield from memory(Path(folder))


def in_memory(pairs: int = PAIRS, samples: int = SAMPLES, repeats: int = REPEATS) -> Iterator[Row]:
    """The step alone, on clips that are there."""
    clips = 0.1 * torch.randn(2, pairs, samples, generator=torch.Generator().manual_seed(0))
    plain, ours, half = fastest([plain_step(*clips), our_step(*clips), our_step(*clips, bf16=True)], repeats)
    what = f"training step, {pairs} pairs of {samples / 44100:.1f} s"
    yield f"{what}, float32", plain, ours, "contrastive, EfficientNet-B0"
    yield f"{what}, bf16", plain, half, "against the plain step in float32"
    z1, z2 = torch.randn(2, 140, 128, generator=torch.Generator().manual_seed(0))
    rolled, product = fastest([lambda: rolled_loss(z1, z2), lambda: contrastive_loss(z1, z2)], 20)
    yield "contrastive loss, 140 pairs", rolled, product, "negatives by rolling; by matrix product"


def from_disk(folder: Path, pairs: int = 8) -> Iterator[Row]:
    """Recordings -> two fragments -> the published chain -> the step; the chain in batches against clip by clip."""
    root = write_voices(folder / "voices")
    made: dict[int, list] = {}
    for workers in (0, 1):
        data = AudioDataModule([str(root)], batch_size=pairs, num_workers=workers, eval_frac=0.0, multi_epoch=8)
        data.setup()
        plain = DataLoader(PlainViews(root), pairs, shuffle=True, num_workers=workers, drop_last=True)
        made[workers] = [plain, data.train_dataloader()]
    pitch, generator = chain("device"), torch.Generator().manual_seed(0)

    def augmented(clips: Tensor) -> Tensor:
        return pitch(clips, 44100, generator)

    empty = torch.zeros(0, SAMPLES)
    steps = [plain_step(empty, empty), our_step(empty, empty), our_step(empty, empty, bf16=True)]
    chains: list[Callable[[Tensor], Tensor]] = [lambda clips: clips, augmented, augmented]
    what = f"from disk, with the published chain, {pairs} pairs of 4 s"
    for workers, (theirs, ours) in made.items():
        loaders = [theirs, ours, ours]
        turns = [[epoch(*side) for side in zip(loaders, chains, steps, strict=True)] for _ in range(2)]
        wall, cpu = (np.min([[side[i] for side in turn] for turn in turns], axis=0).tolist() for i in (0, 1))
        for name, side in (("float32", 1), ("bf16", 2)):
            note = f"{workers} loader processes; plain: soundfile, audiomentations and Praat, float32"
            yield f"{what}, {name}", wall[0], wall[side], note
            if not workers:
                yield f"the same, {name}, CPU time", cpu[0], cpu[side], note


def epoch(loader: DataLoader, augmented: Callable, step: Callable, count: int = 4) -> tuple[float, float]:
    """(seconds, CPU seconds of this process) a step, from disk to optimiser, once the first batch has come."""
    batches = iter(loader)
    next(batches)
    start, cpu = time.perf_counter(), time.process_time()
    for batch in islice(batches, count):
        clip1, clip2 = augmented(torch.cat([batch["clip1"], batch["clip2"]])).chunk(2)
        step(clip1, clip2)
    return (time.perf_counter() - start) / count, (time.process_time() - cpu) / count


def write_voices(root: Path, seconds: float = 8.0) -> Path:
    """32 recordings of 16 singers, half WAV and half FLAC."""
    for i, voice in enumerate(voices(round(seconds * 44100), 44100)):
        audio.write(root / f"singer{i // 2:02}" / f"{i}.{('wav', 'flac')[i % 2]}", voice, 44100)
    return root


class PlainViews(Dataset):
    """As it is usually written: the whole file is read for each view, and cut, and each clip goes through the chain."""

    def __init__(self, root: Path, repeats: int = 8) -> None:
        self.paths = sorted(path for path in root.rglob("*.*") if path.suffix in (".wav", ".flac")) * repeats
        config = yaml.safe_load((CONFIGS / "clip.yaml").read_text())["data"]["init_args"]["augmentation"]
        self.chain, self.rng = build(config, trusted=True), np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        return {name: self.view(self.paths[item]) for name in ("clip1", "clip2")}

    def view(self, path: Path) -> Tensor:
        whole, rate = soundfile.read(path, dtype="float32")
        start = self.rng.integers(len(whole) - 176_000 + 1)
        clip = whole[start : start + 176_000]
        return torch.from_numpy(self.chain(clip / np.abs(clip).max(), rate, self.rng))


class ResidentMemory(Callback):
    """Writes "step, megabytes of this process, of its workers" to a file every so many steps."""

    def __init__(self, path: str, every: int = 100) -> None:
        self.path, self.every = path, every

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step % self.every == 0:
            children = Path("/proc/self/task").glob("*/children")
            workers = [int(pid) for path in children for pid in path.read_text().split()]
            with open(self.path, "a") as file:
                print(trainer.global_step, resident("self"), sum(map(resident, workers)), file=file)


def resident(process: int | str) -> float:
    """Megabytes that are the process's own: what it shares with others (files, what was forked) is left out."""
    numbers = Path(f"/proc/{process}/statm").read_text().split()
    return (int(numbers[1]) - int(numbers[2])) * 4096 / 1e6


def memory(folder: Path, steps: int = 1000) -> Iterator[Row]:
    """`ssl-audio train` with a small network, the chain in batches, validation and checkpoints, and two workers."""
    root, log = folder / "voices", folder / "resident.txt"
    if not root.is_dir():
        write_voices(root)
    options = f"""--config common --config contrastive --config encoder/compact_cnn --config augmentation/device
        --model.encoder.channels [8,16] --model.encoder.embedding_dim 32 --data.nr_samples 22050 --data.batch_size 8
        --data.num_workers 2 --data.multi_epoch 8 --trainer.max_steps {steps} --trainer.accelerator cpu
        --trainer.enable_progress_bar false"""
    write_text(folder / "memory.yaml", yaml.safe_dump({"callbacks": {"memory": {
        "class_path": "benchmarks.bench_training.ResidentMemory", "init_args": {"path": str(log)}
    }}}))  # fmt: skip
    named = ["--config", str(folder / "memory.yaml"), "--trainer.logger.save_dir", str(folder / "runs")]
    command = [sys.executable, "-m", "ssl_audio.cli", "train", *options.split(), *named]
    start = time.perf_counter()
    subprocess.run([*command, "--data.dataset_dirs", f"[{root}]"], check=True, capture_output=True)
    took = (time.perf_counter() - start) / steps
    table = np.loadtxt(log)
    parts = [f"{name} {table[0, i]:.0f} MB at step {table[0, 0]:.0f}, {table[-1, i]:.0f} at {table[-1, 0]:.0f}"
             for i, name in ((1, "training"), (2, "two workers"))]  # fmt: skip
    yield f"a step of a small training, {steps} of them", None, took, f"memory of its own: {'; '.join(parts)}"


def our_step(clip1: Tensor, clip2: Tensor, bf16: bool = False) -> Callable[..., None]:
    """A step on these clips, or on others that it is called with."""
    torch.manual_seed(0)
    method = Contrastive(
        frontend=LogMelSpectrogram(), encoder=EfficientNet(), projection=lambda dim: Projection(dim, 128)
    )
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-4, weight_decay=1e-5)

    def step(clip1: Tensor = clip1, clip2: Tensor = clip2) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = method.objective(clip1, clip2).terms["loss"]
        _update(loss, optimizer)

    return step


def plain_step(clip1: Tensor, clip2: Tensor) -> Callable[..., None]:
    """As `our_step`."""
    from efficientnet_pytorch import EfficientNet as Network
    from nnAudio.features import MelSpectrogram

    torch.manual_seed(0)
    mel = MelSpectrogram(n_fft=2048, hop_length=512, n_mels=128, verbose=False)
    net = Network.from_name("efficientnet-b0", num_classes=1000)
    projection = nn.Sequential(nn.SiLU(), nn.Linear(1000, 128))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    parameters = [*net.parameters(), *projection.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-4, weight_decay=1e-5)

    def project(clips: Tensor) -> Tensor:
        log_mel = torch.log(mel(clips) + 1e-8)
        image = (log_mel / log_mel.max())[:, None].repeat(1, 3, 1, 1)
        image = (image - mean[:, None, None]) / std[:, None, None]
        return normalize(projection(net(image)), dim=1)

    def step(clip1: Tensor = clip1, clip2: Tensor = clip2) -> None:
        _update(rolled_loss(project(clip1), project(clip2)), optimizer)

    return step


def rolled_loss(z1: Tensor, z2: Tensor, temperature: float = 0.2, num_negatives: int = 250) -> Tensor:
    """Decoupled NT-Xent as it is usually written: one roll a negative."""
    positive = cosine_similarity(z1, z2) / temperature
    shifts = range(1, min(len(z1) - 1, num_negatives) + 1)
    negatives = torch.stack([cosine_similarity(z1, z2.roll(k, 0)) / temperature for k in shifts])
    return (negatives.logsumexp(0) - positive).mean()


def fastest(steps: list[Callable[[], object]], repeats: int) -> list[float]:
    """Seconds of the fastest of `repeats` calls of each, in turn, after one that does not count."""
    best = [float("inf")] * len(steps)
    for repeat in range(repeats + 1):
        for i, step in enumerate(steps):
            start = time.perf_counter()
            step()
            if repeat:
                best[i] = min(best[i], time.perf_counter() - start)
    return best


def _update(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
