"""Receive the files of a request. Their size is limited while they arrive, and the server chooses their names."""

import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ssl_audio.serving.limits import Limits
from ssl_audio.serving.service import problem_of

FIELD = "file"  # name of the form field; a form may have several


@asynccontextmanager
async def uploads(request: Request, folder: Path, limits: Limits) -> AsyncIterator[list[Path]]:
    """Write the audio files of a request to a folder, and remove them at the end of the context.

    The files in a body of type multipart/form-data are its fields named `file`. Any other body is one file. File names
    from the client are ignored.

    Raises:
        HTTPException: 400: there is no file. 413: files are too large, too long or too many. 422: a file is not audio.
    """
    own = folder / secrets.token_hex(8)
    own.mkdir()
    try:
        bounded = Request(request.scope, _bounded(request, limits.max_bytes))
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data":
            paths = await _from_form(bounded, own, limits)
        else:
            paths = await _from_body(bounded, own)
        for number, path in enumerate(paths, 1):
            problem = await run_in_threadpool(problem_of, path, limits.max_seconds)
            if problem is not None:
                raise HTTPException(problem[0], f"file {number} {problem[1]}")
        yield paths
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _bounded(request: Request, limit: int) -> Any:
    """The `receive` function of a request, which raises an error for a body of more than `limit` bytes."""
    too_large = HTTPException(413, f"the body is too large; this server takes up to {limit} bytes")
    declared = request.headers.get("content-length", "0")
    received = 0

    async def receive() -> Any:
        nonlocal received
        if declared.isdigit() and int(declared) > limit:
            raise too_large
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_large
        return message

    return receive


async def _from_body(request: Request, folder: Path) -> list[Path]:
    path = folder / "0"
    with open(path, "wb") as file:
        async for chunk in request.stream():
            file.write(chunk)
        if not file.tell():
            raise HTTPException(400, f"the body is empty; send an audio file, or a form with fields named {FIELD!r}")
    return [path]


async def _from_form(request: Request, folder: Path, limits: Limits) -> list[Path]:
    try:
        async with request.form(max_files=limits.max_files, max_fields=limits.max_files) as form:
            files = [file for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
            if not files:
                raise HTTPException(400, f"the form has no file in a field named {FIELD!r}")
            paths = [folder / str(number) for number in range(len(files))]
            for path, file in zip(paths, files, strict=True):
                await run_in_threadpool(_copy, file, path)
    except HTTPException as error:
        if error.status_code == 400 and error.detail.startswith("Too many"):  # the message of Starlette
            raise HTTPException(413, f"the form has more than {limits.max_files} files or fields") from error
        raise
    return paths


def _copy(file: UploadFile, path: Path) -> None:
    with open(path, "wb") as out:
        shutil.copyfileobj(file.file, out)
