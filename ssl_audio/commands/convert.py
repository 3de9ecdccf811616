"""Turn a training checkpoint into a model folder, which ssl_audio.load_model(FOLDER) loads without Lightning.

Before the folder is put in place, its output is compared with the checkpoint's on random inputs.

Layouts:
  ours        config.yaml, model.safetensors and a model card; for every model
  published   hyperparams.yaml, model.pt and model.ts; for models like the published singer-identity models

Checkpoints that CLMR published are recognised. With the classifier of CLMR's linear evaluation the model names tags.
"""

import io
import os
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_audio.errors import InputError

if TYPE_CHECKING:
    from ssl_audio.model import EmbeddingModel

EXAMPLES = """examples:
  ssl-audio convert --checkpoint runs/byol/0 --output_dir my-singer
  ssl-audio convert --checkpoint X.ckpt --config config.yaml --output_dir models/byol --layout published
  ssl-audio convert --checkpoint clmr.ckpt --classifier finetuner.ckpt --output_dir clmr
"""

TOLERANCE = 1e-5  # largest difference, relative to the largest output


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="X.ckpt", help="a checkpoint, or the folder of a run")
    parser.add_argument("--config", metavar="config.yaml", help="the config of the run (default: the checkpoint's own)")
    parser.add_argument(
        "--output_dir", "--output", metavar="D", help="folder to write (default: the checkpoint's path without .ckpt)"
    )
    parser.add_argument("--num_trials", type=int, default=20, metavar="N", help="number of inputs to compare (20)")
    parser.add_argument("--layout", choices=("ours", "published"), default="ours", help="files to write (ours)")
    parser.add_argument("--projection", action="store_true", help="keep the projection head on top of the encoder")
    parser.add_argument("--classifier", metavar="X.ckpt", help="classifier of CLMR's linear evaluation, put on top")
    parser.add_argument("--tags", metavar="FILE", help="names of its tags, one per line (default: MagnaTagATune's 50)")
    parser.add_argument("--trusted", action="store_true", help="allow the config to name classes outside ssl_audio")


def run(args: Namespace) -> int:
    from ssl_audio.hub.place import find_checkpoint

    if args.num_trials < 1:
        raise InputError(f"--num_trials is {args.num_trials}; it must be at least 1")
    checkpoint = find_checkpoint(args.checkpoint)
    model = load(args, checkpoint)
    if args.layout != "ours":  # in the published layout, who reads files sets the level
        model = model.with_parts(level_in_forward=False)
    output = Path(args.output_dir or checkpoint.with_suffix(""))
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; give another folder as --output_dir")
    output.parent.mkdir(parents=True, exist_ok=True)
    # Write and compare beside the output, on the same file system, so that a refused model leaves nothing behind.
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
    from ssl_audio.utils.tables import read_lines

    tags = read_lines(args.tags) if args.tags else []
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
        content = io.BytesIO()  # torch ends the process where a disk is full
        torch.jit.save(torch.jit.trace(model, torch.zeros(2, model.sample_rate), check_trace=False), content)
        temporary.write_bytes(content.getbuffer())


def compare(model: "EmbeddingModel", folder: Path, trials: int, trusted: bool = False) -> float:
    """The largest difference between the model and what is in the folder, relative to the largest output.

    Raises:
        InputError: the difference exceeds `TOLERANCE`.
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
                if not difference <= TOLERANCE:  # true for NaN too
                    raise InputError(
                        f"the converted model differs from the checkpoint by {difference:.2g} of the largest output "
                        f"on an input of {batch} x {samples} samples; nothing was written"
                    )
                largest = max(largest, difference)
    return largest
