"""The `ssl-audio` command: one sub-command a file in `ssl_audio.commands`, imported only when it is called."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from ssl_audio.errors import InputError
from ssl_audio.utils.extras import install_command
from ssl_audio.utils.files import NO_ROOM, write_problem
from ssl_audio.utils.malloc import keep_freed_memory

COMMANDS: dict[str, str] = {
    "demo": "train on synthetic singers and evaluate on others, in a few minutes",
    "export": "write a model as ONNX or TorchScript, checked against PyTorch",
    "train": "train an embedding from stacked config files",
    "configs": "list, show or copy the config files of the package",
    "distil": "teach a small network to embed as a large one does, and say what is lost",
    "sweep": "train runs that differ in a few keys, and compare them in one table",
    "preprocess": "cut a data set into segments, one folder per singer",
    "pairs": "draw a list of verification trials from a data set",
    "cache": "decode and resample a data set once, so that training reads it without decoding",
    "shard": "pack a data set into a few large files, for network file systems and object stores",
    "convert": "turn a training checkpoint into a model folder",
    "push": "upload a model to the Hugging Face Hub with its model card",
    "embed": "write the embeddings of recordings into a table (.parquet, .npz)",
    "load": "load a table of embeddings into LanceDB, Qdrant, PostgreSQL or SQLite",
    "index": "embed a library of music once, for recommend and map",
    "recommend": "find what sounds like a song in an indexed library",
    "serve": "serve a model over HTTP: embeddings, comparison, similar recordings",
    "map": "draw an indexed library as an HTML page",
    "eval": "test one model on trial lists by the published protocol: EER and MNR with intervals",
    "evaluate": "compare several models in a report: which is better, by how much, is it significant",
    "adapt": "fit a model to your recordings without training, where it helps people left out",
    "calibrate": "fit what turns a model's scores into probabilities and decisions",
    "compare": "compare recordings: one person or two, how probable, how certain",
    "identify": "find who of a number of known people is heard, or none of them",
    "cluster": "find how many voices are in a folder, and which recording belongs to which",
    "probe": "test what a frozen or fine-tuned encoder knows about a labelled corpus",
    "tag": "show the tags of a song over time: picture, table, JSON",
    "harness": "test a model in HEAR, X-ARES, EVAR, MARBLE, s3prl or MTEB",
    "listen": "hear and measure the pitch and formant shifts beside Praat's",
    "fit-transcriber": "train and test a head that reads notes from a model's frames",
    "transcribe": "turn a recording into MIDI and a piano roll",
}
"""Command -> its line in `ssl-audio --help`. `ssl_audio.commands.<name>` has EXAMPLES, add_arguments and run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command. Returns the exit status of the process: 2 after an error, which is one line on stderr."""
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
    """Run the command `name` with its own arguments. The scripts `train.py`, `eval.py`, ... call this.

    A command module has `add_arguments(parser)`, `run(args) -> int | None`, and the text `EXAMPLES` for `--help`. If it
    has `main(arguments) -> int`, it parses its arguments itself (`train`, `sweep`).

    Args:
        name: a key of `COMMANDS`.
        arguments: what follows the name on the command line.
        program: how `--help` calls the program. Default: `ssl-audio NAME`.

    Returns:
        The exit status: what the command returns, 2 after an `InputError`, 130 after Ctrl-C.
    """
    keep_freed_memory()
    if sys.stdout.errors == "strict" and hasattr(sys.stdout, "reconfigure"):
        # File names may contain undecodable bytes. Print them escaped, as stderr already does.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        command = _module(name)
        if hasattr(command, "main"):
            return command.main(list(arguments)) or 0
        args = make_parser(name, program).parse_args(with_underscores(arguments))
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
        print(f"error: this needs {error.name}; install it with: {install_command(extra)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except OSError as error:
        line = _system_error(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2
    except MemoryError:
        print("error: there is not enough memory; close other programs, or give fewer files", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _system_error(error: OSError) -> str | None:
    """One line for what the system refuses, such as a file that may not be read; None if it names no file."""
    number = write_problem(error)
    if number in NO_ROOM:
        return f"{error.filename or 'a file'}: {os.strerror(number)}; make room or choose another place"
    if error.filename is None:
        return None
    remedy = "allow it, or choose another place" if isinstance(error, PermissionError) else "check its name"
    return f"{os.fsdecode(error.filename)}: {error.strerror}; {remedy}"


def search_working_folder() -> None:
    """Find code that a config or an address names in modules of the working folder, as a script in it would.

    The folder is searched last, so that no file in it hides an installed package.
    """
    if "" not in sys.path:
        sys.path.append("")


def make_parser(name: str, program: str | None = None) -> argparse.ArgumentParser:
    """The parser of a command that has one (`train` reads keys of a config instead), with its examples in the help."""
    command = _module(name)
    parser = argparse.ArgumentParser(
        prog=program or f"ssl-audio {name}",
        description=command.__doc__,
        epilog=command.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return parser


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """`--batch-size` -> `--batch_size`: every option has an underscore in its name and may be typed with a hyphen.

    Only names of options change: no value, no positional argument, nothing after `--`.
    """
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    return [_LONG_OPTION.sub(lambda name: "--" + name[0][2:].replace("-", "_"), word) for word in words[:end]] + words[
        end:
    ]


def _module(name: str) -> ModuleType:
    return import_module(f"ssl_audio.commands.{name.replace('-', '_')}")


_LONG_OPTION = re.compile(r"^--[a-zA-Z][\w-]*(?==|\Z)")  # not `--two words`, which argparse takes for a value

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
    "lancedb": "lancedb",
    "qdrant_client": "qdrant",
    "psycopg": "postgres",
    "pgvector": "postgres",
    "starlette": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
    "transformers": "hf",
    "dask": "dask",
    "distributed": "dask",
}


if __name__ == "__main__":
    sys.exit(main())
