"""A process that runs rows one after the other; one that takes too long, or that ends it, is one lost row."""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.gpu.figures import Setting
from benchmarks.gpu.rows import Row

_CONTEXT = multiprocessing.get_context("spawn")


class Worker:
    """Runs rows in a process of its own, which is started when first needed and again after it was ended.

    Args:
        setting: of all rows.
        log: a file for what the rows print.
    """

    def __init__(self, setting: Setting, log: Path) -> None:
        self.setting, self.log = setting, log
        self._process: Any = None
        self._pipe: Any = None

    def run(self, row: Row, limit: float) -> dict[str, Any]:
        """{"status", "seconds", "figures" or "error"}; the status is "done", "failed" or "timed out"."""
        if self._process is None:
            self._start()
        started, ended = time.perf_counter(), {"status": "failed", "error": f"the process ended; see {self.log.name}"}
        try:
            self._pipe.send(row)
            result = self._pipe.recv() if self._pipe.poll(limit) else {"status": "timed out"}
        except (EOFError, OSError):
            result = ended
        if result is ended or result["status"] == "timed out":
            self.close(patience=0.0)
        return {**result, "seconds": round(time.perf_counter() - started, 1)}

    def _start(self) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, self.setting, str(self.log)))
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it has imported what it needs, which no row should pay for

    def close(self, patience: float = 10.0) -> None:
        """End the process and those that it started, after `patience` seconds by force."""
        if self._process is not None:
            self._pipe.close()
            self._process.join(patience)
            with suppress(ProcessLookupError, PermissionError):  # the group is gone, or was never made
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(pipe: Any, setting: Setting, log: str) -> None:
    os.setsid()  # a group of its own, with the loader processes that rows start
    with open(log, "a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        from benchmarks.gpu import training
        from ssl_audio.utils.malloc import keep_freed_memory

        keep_freed_memory()
        pipe.send("ready")
        while True:
            try:
                row = pipe.recv()
            except EOFError:
                return
            print(f"--- {row.name}")
            module, _, function = row.function.rpartition(".")
            try:
                found = getattr(import_module(module), function)(setting, **row.arguments)
                result: dict[str, Any] = {"status": "done", "figures": [asdict(figure) for figure in found]}
            except ModuleNotFoundError as error:
                result = {"status": "failed", "error": f"needs {error.name}, which is not installed"}
            except Exception as error:  # the next row may still work
                traceback.print_exc()
                lines = str(error).strip().splitlines() or [""]
                result = {"status": "failed", "error": f"{type(error).__name__}: {lines[0][:200]}"}
            training.clean(setting)
            pipe.send(result)
