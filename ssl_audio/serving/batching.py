"""Batches of requests: one thread computes, and all jobs that arrive meanwhile form the next batch."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Batcher:
    """Collects the jobs that arrive while a call runs, and passes them to the next call.

    If no call runs, a job starts at once. If `submit` is cancelled (because a request timed out), its job is removed,
    unless it has started.

    Args:
        run: function that is called in `thread` with a list of jobs. It returns their results in order.
        thread: an executor with one worker.
        size: largest total weight of a batch; a single job may exceed it.
        weight: function that returns the weight of a job, such as its number of files.
        on_batch: called with the total weight of each batch.
    """

    def __init__(
        self,
        run: Callable[[list[Any]], Sequence[Any]],
        thread: ThreadPoolExecutor,
        size: int,
        weight: Callable[[Any], int] = lambda job: 1,
        on_batch: Callable[[int], object] = lambda weight: None,
    ) -> None:
        self._run, self._thread, self._size, self._weight, self._on_batch = run, thread, size, weight, on_batch
        self._waiting: list[tuple[Any, asyncio.Future]] = []
        self._running: asyncio.Task | None = None

    async def submit(self, job: Any) -> Any:
        """Wait for the result of a job. Raises the error that `run` raised for its batch."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while batch := self._next():
            jobs = [job for job, _ in batch]
            self._on_batch(sum(map(self._weight, jobs)))
            try:
                results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, jobs)
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _next(self) -> list[tuple[Any, asyncio.Future]]:
        self._waiting = [entry for entry in self._waiting if not entry[1].done()]
        batch: list[tuple[Any, asyncio.Future]] = []
        total = 0
        while self._waiting and (not batch or total + self._weight(self._waiting[0][0]) <= self._size):
            batch.append(self._waiting.pop(0))
            total += self._weight(batch[-1][0])
        return batch
