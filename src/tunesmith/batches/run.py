"""The worker of a batch: asks each request of the input once, keeps each answer durably, writes output and errors at the end.

A new attempt goes on with what has no answer yet. It ends when all have one, when the batch's time is over (those without one are
written as expired), or when it is cancelled (what is under way is finished, and what is done is kept). Knows no SQL.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import aiohttp

from tunesmith.batches.answers import AnswerLog, write_rows
from tunesmith.batches.ask import Asker, failed
from tunesmith.completer import LONGEST_SECONDS
from tunesmith.recipes.batch import BatchRecipe
from tunesmith.runfolder import JobTools, RunFolder

Outcome = Literal["completed", "expired", "cancelled"]
TICK_SECONDS = 0.2
"""How often orders and the clock are looked at."""
TELL_SECONDS = 1.0
"""How often progress is told, at most, and answers are made safe from a power cut."""
LEAVE_SECONDS = 4.0
"""What requests under way have to end in when the server stops; they are asked again after it."""
EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")


def run_batch(recipe: BatchRecipe, folder: RunFolder, tools: JobTools) -> dict[str, Any] | None:
    """{"outcome", "request_counts", "usage", "output", "errors"}: the last two are paths in the folder, or None; None for all
    when the server stops. Raises Fenced, StorageFull."""
    log = AnswerLog(folder.artifacts / "answers.jsonl")
    try:
        run = _Run(recipe, folder, tools, log)
        outcome = asyncio.run(run.to_its_end())
        return None if outcome is None else run.conclude(outcome)
    finally:
        log.close()


def read_requests(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The requests of an input file that was checked, with their lines; empty lines are none."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, json.loads(line)


class _Run:
    def __init__(self, recipe: BatchRecipe, folder: RunFolder, tools: JobTools, log: AnswerLog):
        self._recipe, self._folder, self._tools, self._log = recipe, folder, tools, log
        self._input = folder.data_path(recipe.input)
        self._total = sum(1 for _ in read_requests(self._input))
        self._open = (each for each in read_requests(self._input) if each[0] not in log)
        self._stopping = asyncio.Event()
        self._stopped: Literal["pause", "cancel", "expire"] | None = None
        self._told, self._next_tell = -1, 0.0

    async def to_its_end(self) -> Outcome | None:
        """Until there is nothing more to ask; None when the server stops. What a task of ours raises is raised."""
        timeout = aiohttp.ClientTimeout(total=LONGEST_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            asker = Asker(session, self._tools, self._recipe.endpoint, self._recipe.expires, self._stopping)
            self._look()
            tasks = {asyncio.create_task(self._ask_some(asker)) for _ in range(self._recipe.concurrency)}
            try:
                await self._watch(tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        is_done = len(self._log) == self._total
        if self._stopped == "pause" and not is_done:
            return None
        return "completed" if is_done else "cancelled" if self._stopped == "cancel" else "expired"

    async def _ask_some(self, asker: Asker) -> None:
        for line, request in self._open:
            if self._stopped is not None:
                return
            if (answer := await asker.ask(line, request)) is not None:
                self._log.add(answer)

    async def _watch(self, tasks: set[asyncio.Task[None]]) -> None:
        """Until all tasks have ended, or time is up for those that the server's stop leaves under way."""
        leave = float("inf")
        while tasks and time.monotonic() < leave:
            done, tasks = await asyncio.wait(tasks, timeout=TICK_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            was = self._stopped
            self._look()
            if self._stopped == "pause" != was:
                leave = time.monotonic() + LEAVE_SECONDS

    def _look(self) -> None:
        """Takes orders, looks at the clock, and tells how far it is."""
        is_over = time.time() >= self._recipe.expires
        self._stopped = self._tools.should_stop() or self._stopped or ("expire" if is_over else None)
        if self._stopped is not None:
            self._stopping.set()
        if len(self._log) != self._told and time.monotonic() >= self._next_tell:
            self._tell()

    def _tell(self, **more: Any) -> None:
        self._log.sync()
        self._tools.emit("progress", **self._progress(), **more)
        self._told, self._next_tell = len(self._log), time.monotonic() + TELL_SECONDS

    def _progress(self) -> dict[str, Any]:
        counts = {"total": self._total, "completed": self._log.num_ok, "failed": len(self._log) - self._log.num_ok}
        return {"request_counts": counts, "usage": self._log.usage}

    def conclude(self, outcome: Outcome) -> dict[str, Any]:
        """Output and error files from what was answered."""
        finalizing = int(time.time())
        self._tell(finalizing_at=finalizing)
        output, errors = self._folder.artifacts / "output.jsonl", self._folder.artifacts / "errors.jsonl"
        num_ok = write_rows(output, self._rows(True, outcome))
        num_failed = write_rows(errors, self._rows(False, outcome))
        return self._progress() | {
            "outcome": outcome,
            "finalizing_at": finalizing,
            "request_counts": {"total": self._total, "completed": num_ok, "failed": num_failed},
            "output": str(output.relative_to(self._folder.root)) if num_ok else None,
            "errors": str(errors.relative_to(self._folder.root)) if num_failed else None,
        }

    def _rows(self, wanted: bool, outcome: Outcome) -> Iterator[dict[str, Any]]:
        """In the order of the input."""
        for line, request in read_requests(self._input):
            if line in self._log:
                ok, row = self._log.row(line)
                if ok is wanted:
                    yield row
            elif outcome == "expired" and not wanted:
                yield failed(line, request["custom_id"], *EXPIRED).row
