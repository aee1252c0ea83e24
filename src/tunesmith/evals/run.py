"""The worker of an eval run: makes or takes each row's answer, grades it, and says what came of it in one event per row.

A new attempt reads what earlier ones said, and asks nothing again that is done. What goes wrong with a row is an item with an
error; the run goes on. Knows no SQL and no engine: it asks the desk.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import aiohttp

from tunesmith.completer import Judge
from tunesmith.errors import InvalidData
from tunesmith.evals import rows, samples
from tunesmith.evals.desk import DeskClient
from tunesmith.evals.rows import Row
from tunesmith.evals.summary import Outcome, names_of, summarise
from tunesmith.graders.grade import add_usage, grade, threshold
from tunesmith.recipes.eval_run import EvalRunRecipe
from tunesmith.runfolder import JobTools, RunFolder, read_events
from tunesmith.types import Graded

TICK_SECONDS = 0.2
"""How often orders are looked at."""
TELL_SECONDS = 1.0
"""How often progress is told, at most."""
LEAVE_SECONDS = 4.0
"""What rows under way have to end in when the server stops; they are asked again after it."""
UNGRADED = frozenset({"invalid_variable_error", "other_error", "model_grader_server_error", "python_grader_server_error"})
"""Errors of a grader with which a row has no grade; with the others it has a bad one."""


def run_eval(recipe: EvalRunRecipe, folder: RunFolder, tools: JobTools) -> dict[str, Any] | None:
    """What all items come to (`summary.py`), or None when the run was cancelled or the server stops. Raises Fenced, StorageFull,
    InvalidData when there are no rows."""
    run = _Run(recipe, folder, tools)
    return asyncio.run(run.to_its_end())


def outcomes_so_far(folder: RunFolder) -> dict[int, Outcome]:
    """Row -> what it came to, as earlier attempts said it."""
    found: dict[int, Outcome] = {}
    for attempt in folder.attempts():
        for event in read_events(folder.events_file(attempt)).events:
            if event["type"] == "item":
                found.setdefault(event["row"], {name: event[name] for name in ("status", "results", "usage")})
    return found


class _Run:
    def __init__(self, recipe: EvalRunRecipe, folder: RunFolder, tools: JobTools):
        self._recipe, self._tools = recipe, tools
        self._names = names_of(recipe.criteria)
        self._done = outcomes_so_far(folder)
        self._num_rows, self._told, self._next_tell = 0, -1, 0.0
        self._open = self._open_rows(rows.read(folder.data_path(recipe.rows), recipe.item_schema))

    def _open_rows(self, found: Iterator[Row]) -> Iterator[Row]:
        for row in found:
            self._num_rows += 1
            if row.number not in self._done:
                yield row

    def _tell(self) -> None:
        """How far it is, for those who ask meanwhile."""
        if len(self._done) != self._told and time.monotonic() >= self._next_tell:
            self._tools.emit("progress", **summarise(self._done.values()))
            self._told, self._next_tell = len(self._done), time.monotonic() + TELL_SECONDS

    async def to_its_end(self) -> dict[str, Any] | None:
        """What a task of ours raises is raised."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(None)) as session:
            desk = DeskClient(session, self._tools.base_url, self._tools.api_key, self._recipe.embedding_model)
            tasks = {asyncio.create_task(self._some(desk)) for _ in range(self._recipe.concurrency)}
            try:
                stopped = await self._watch(tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if stopped:
            return None
        if not self._num_rows:
            raise InvalidData("The run has no rows.", hint="Give it at least one.", param="data_source", code="invalid_file")
        return summarise(self._done.values())

    async def _watch(self, tasks: set[asyncio.Task[None]]) -> bool:
        """Until all tasks have ended; True when the run shall stop before."""
        leave = float("inf")
        while tasks and time.monotonic() < leave:
            done, tasks = await asyncio.wait(tasks, timeout=TICK_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            self._tell()
            wanted = self._tools.should_stop()
            if wanted == "cancel" and tasks:
                return True
            if wanted == "pause" and leave == float("inf"):
                self._open = iter(())
                leave = time.monotonic() + LEAVE_SECONDS
        return leave < float("inf")

    async def _some(self, judge: Judge) -> None:
        while (row := next(self._open, None)) is not None:
            outcome, fields = await self._one(row, judge)
            self._tools.emit("item", row=row.number, item=row.item, **outcome, **fields)
            self._done[row.number] = outcome

    async def _one(self, row: Row, judge: Judge) -> tuple[Outcome, dict[str, Any]]:
        """One row: what it came to, and what else is told of it."""
        sample = await samples.make(self._recipe.sampling, row, judge)
        if sample.failed:
            return {"status": "error", "results": [], "usage": sample.usage}, {"sample": sample.shown}
        graded = await asyncio.gather(*(grade(each, row.item, sample.values, judge) for each in self._recipe.criteria))
        results = [self._result(number, each) for number, each in enumerate(graded)]
        usage = sample.usage
        for each in graded:
            usage = add_usage(usage, each.usage)
        passed = all(result["passed"] for result in results)
        ungraded = any(UNGRADED & set(each.errors) for each in graded)
        return {"status": "error" if ungraded else "pass" if passed else "fail", "results": results, "usage": usage}, {
            "sample": sample.shown
        }

    def _result(self, number: int, graded: Graded) -> dict[str, Any]:
        """OpenAI's object of one criterion."""
        criterion = self._recipe.criteria[number]
        told = {"sample": (graded.sample or {}) | ({"error": graded.reason} if graded.errors else {})}
        return {
            "name": self._names[number],
            "type": f"{criterion.type.replace('_', '-')}-grader",
            "score": graded.score,
            "passed": not graded.errors and graded.score >= threshold(criterion),
        } | (told if told["sample"] else {})
