"""The `ssl-audio` command: one sub-command a file in `ssl_audio.commands`, imported only when it is called."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from ssl_audio.errors import InputError
from ssl_audio.utils.malloc import keep_freed_memory

# name -> what `ssl-audio --help` says of it. `ssl_audio.commands.<name>` holds EXAMPLES, add_arguments and run.
COMMANDS: dict[str, str] = {
    "demo": "synthetic singers -> train -> evaluate, in a few minutes",
    "export": "a model -> ONNX or TorchScript, checked against PyTorch",
    "train": "train an embedding from stacked config files",
    "configs": "list, show or copy the config files that come with the package",
    "sweep": "many trainings that differ in a few keys -> one table",
    "preprocess": "cut a data set into segments, one folder a singer",
    "pairs": "draw trials for verification from a data set",
    "cache": "decode and resample a data set once, so that training reads it without decoding",
    "shard": "a data set -> a few large files, for network file systems and object stores",
    "convert": "make a model folder of a training checkpoint",
    "push": "a model -> the Hugging Face Hub, with its card",
    "embed": "a folder of recordings -> a table of embeddings (.parquet, .npz)",
    "index": "embed a folder of music once, for recommend and map",
    "recommend": "what in an indexed library sounds like a song",
    "map": "an indexed library as an HTML map",
    "eval": "test an embedding on trial lists: EER and MNR with intervals",
    "probe": "what a frozen or tuned encoder knows about a labelled corpus, with baselines",
    "tag": "tags of a song over time: a picture, a table, JSON",
    "evaluate": "compare embeddings and write a report: which is better, by how much, is it luck",
    "listen": "pitch and formant shift to hear and to measure, beside Praat's",
    "fit-transcriber": "train a head that reads notes from a model's frames, and test it",
    "transcribe": "a recording -> MIDI and a piano roll",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command and return the process's exit status: 0, or 2 after one line of `error: ...`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: ssl-audio COMMAND [...]     (ssl-audio COMMAND --help shows examples)\n")
        width = max((len(name) for name in COMMANDS), default=0)
        for name, text in COMMANDS.items():
            print(f"  {name:<{width}}  {text}")
        return 0
    name, *rest = arguments
    if name == "--version":
        from ssl_audio import __version__

        print(__version__)
        return 0
    if name not in COMMANDS:
        print(f"error: no command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return run_command(name, rest)


def run_command(name: str, arguments: Sequence[str], program: str | None = None) -> int:
    """Run the command `name` with its own arguments; `train.py`, `eval.py`, ... are this call with their own `program`.

    A command module has `add_arguments(parser)` and `run(args) -> int | None`, and an `EXAMPLES` text for `--help`. One
    that has `main(arguments) -> int` instead parses for itself (training, whose parser is Lightning's).
    """
    keep_freed_memory()
    if sys.stdout.errors == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold what no encoding has, as on stderr
    command = import_module(f"ssl_audio.commands.{name.replace('-', '_')}")
    try:
        if hasattr(command, "main"):
            return command.main(list(arguments)) or 0
        parser = argparse.ArgumentParser(
            prog=program or f"ssl-audio {name}",
            description=command.__doc__,
            epilog=command.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(parser)
        args = parser.parse_args(list(arguments))
        if getattr(args, "trusted", False):
            search_working_folder()
        return command.run(args) or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        print(f"error: this needs {error.name}; install it with: pip install 'ssl-audio[{extra}]'", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def search_working_folder() -> None:
    """Find code that a config or an address names in modules of the working folder, as a script in it would.

    The folder is searched last, so that no file in it hides an installed package.
    """
    if "" not in sys.path:
        sys.path.append("")


_EXTRA_OF = {
    "pytorch_lightning": "train",
    "jsonargparse": "train",
    "audiomentations": "train",
    "parselmouth": "train",
    "tensorboard": "train",
    "joblib": "train",
    "matplotlib": "eval",
    "sklearn": "eval",
    "pandas": "eval",
    "mir_eval": "eval",
    "pretty_midi": "eval",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "faiss": "search",
    "umap": "search",
    "webdataset": "shards",
    "transformers": "hf",
}


if __name__ == "__main__":
    sys.exit(main())
