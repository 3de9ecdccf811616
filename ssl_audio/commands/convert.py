"""Make a model folder of a training checkpoint, checked to give the same output before it is put in place.

The folder loads with ssl_audio.load_model(FOLDER), without Lightning. Layouts: `ours` (config.yaml, model.safetensors,
a model card) holds every model; `published` (hyperparams.yaml, model.pt, model.ts) that of the singer-identity models.
A checkpoint that CLMR published is known by its keys; with the classifier of its linear evaluation it names tags.
"""

import os
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_audio.errors import InputError

if TYPE_CHECKING:
    from ssl_audio.model import EmbeddingModel

EXAMPLES = """examples:
  ssl-audio convert --checkpoint runs/byol/checkpoints/last.ckpt --output_dir my-singer
  python convert_checkpoint.py --checkpoint X.ckpt --config config.yaml --output_dir models/byol --layout published
  ssl-audio convert --checkpoint clmr.ckpt --classifier finetuner.ckpt --output clmr
"""

TOLERANCE = 1e-5  # of the largest output


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="X.ckpt", help="of a training run, or the run's folder")
    parser.add_argument("--config", metavar="config.yaml", help="the run's (default: what the checkpoint carries)")
    parser.add_argument("--output_dir", "--output", metavar="D", help="default: the checkpoint's path without .ckpt")
    parser.add_argument("--num_trials", type=int, default=20, metavar="N", help="random inputs to compare (20)")
    parser.add_argument("--layout", choices=("ours", "published"), default="ours", help="(ours)")
    parser.add_argument("--projection", action="store_true", help="with the projection head on top")
    parser.add_argument("--classifier", metavar="X.ckpt", help="of CLMR's linear evaluation, put on top")
    parser.add_argument("--tags", metavar="FILE", help="the classifier's tags, one a line (MagnaTagATune's 50)")
    parser.add_argument("--trusted", action="store_true", help="the config may name classes outside of ssl_audio")


def run(args: Namespace) -> int:
    from ssl_audio.hub.place import find_checkpoint

    if args.num_trials < 1:
        raise InputError(f"--num_trials is {args.num_trials}; at least one input must be compared")
    checkpoint = find_checkpoint(args.checkpoint)
    model = load(args, checkpoint)
    output = Path(args.output_dir or checkpoint.with_suffix(""))
    output.parent.mkdir(parents=True, exist_ok=True)
    # Written and compared beside the output, on the same file system, so that a refused model leaves nothing behind.
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=output.parent) as folder:
        staged = Path(folder) / output.name
        write(model, staged, args.layout)
        largest = compare(model, staged, args.num_trials, args.trusted)
        output.mkdir(exist_ok=True)
        for file in sorted(staged.iterdir()):
            os.replace(file, output / file.name)
    print(f"{output}: the same output on {args.num_trials} random inputs (largest relative difference {largest:.1e})")
    print(f'next: python -c "import ssl_audio; print(ssl_audio.load_model({str(output)!r}))"')
    return 0


def load(args: Namespace, checkpoint: Path) -> "EmbeddingModel":
    """The model in the checkpoint, under CLMR's classifier if there is one."""
    from ssl_audio.hub import load_checkpoint

    if args.tags is not None and not (args.classifier and Path(args.tags).is_file()):
        raise InputError(f"--tags {args.tags}: {'no such file' if args.classifier else 'belongs to --classifier'}")
    model = load_checkpoint(checkpoint, args.config, projection=args.projection, trusted=args.trusted)
    if args.classifier is None:
        return model
    from ssl_audio.hub.clmr import with_classifier

    tags = Path(args.tags).read_text(encoding="utf-8").splitlines() if args.tags else []
    return with_classifier(model, args.classifier, [tag.strip() for tag in tags if tag.strip()] or None)


def write(model: "EmbeddingModel", folder: Path, layout: str) -> None:
    """Write the model in one of the two layouts."""
    import torch

    from ssl_audio.hub.saved import save_model
    from ssl_audio.hub.singer_identity import TORCHSCRIPT, save_published
    from ssl_audio.utils.files import write_atomically

    if layout == "ours":
        save_model(model, folder)
        return
    save_published(model, folder)
    with torch.no_grad(), write_atomically(folder / TORCHSCRIPT) as temporary:
        torch.jit.trace(model, torch.zeros(2, model.sample_rate), check_trace=False).save(str(temporary))


def compare(model: "EmbeddingModel", folder: Path, trials: int, trusted: bool = False) -> float:
    """The largest difference between the model and what is in the folder, relative to the largest output.

    Raises:
        InputError: it is not the same output.
    """
    import torch
    from tqdm import tqdm

    from ssl_audio.hub import load_model

    loaded = [load_model(folder, trusted=trusted)]
    if (folder / "model.ts").is_file():
        loaded.append(load_model(folder, torchscript=True))
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for trial in tqdm(range(trials), desc="comparing", leave=False):
        batch = 1 + trial % 3
        samples = model.minimum_samples + int(torch.randint(model.sample_rate, (1,), generator=generator))
        audio = 0.1 * torch.randn(batch, samples, generator=generator)
        with torch.inference_mode():
            expected = model(audio)
            for other in loaded:
                difference = ((other(audio) - expected).abs().max() / expected.abs().max()).item()
                if not difference <= TOLERANCE:  # NaN is not
                    raise InputError(
                        f"the converted model differs from the checkpoint by {difference:.2g} of the largest output "
                        f"on an input of {batch} x {samples} samples; nothing was written"
                    )
                largest = max(largest, difference)
    return largest
