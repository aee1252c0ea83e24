"""Runs one attempt of a run folder: recipe.json in, events.jsonl, checkpoints and artifacts out. What to do, its `kind` says.

    python -m tunesmith.worker RUN_FOLDER --attempt N [--models-dir D]

Exit status: 0 done, paused or cancelled (the last event says which), 1 failed (an `error` event says why), 3 fenced,
33 interrupted: what was done is saved, start me again.
Started by name, never imported by the desk. Knows no SQL and no routes; no network is used but the desk's own port, whose
address and key stand in the environment (TUNESMITH_BASE_URL, TUNESMITH_JOB_KEY), what a recipe's `tracking` and
`checkpoints.sync` name, and, on a cloud's machine, that machine's own metadata service.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tunesmith.errors import Fenced, InvalidRecipe, StorageFull, TunesmithError
from tunesmith.runfolder import INTERRUPTED, EventLog, JobTools, RunFolder
from tunesmith.train.interruption import Interruption, clouds_here
from tunesmith.types import Stop

DONE, FAILED, FENCED = 0, 1, 3
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_DISABLED": "true",
    "WANDB_ERROR_REPORTING": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
"""Libraries read these at import: nothing is sent anywhere, nothing is fetched."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tunesmith.worker", description="Run one attempt of a run folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--models-dir", type=Path)
    args = parser.parse_args()
    os.environ.update(QUIET)
    # Threads that spin while they wait would take the core that the engine or a second worker needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    folder = RunFolder(args.folder.absolute())
    log = EventLog(folder.events_file(args.attempt))
    interruption = Interruption(clouds_here(os.environ))
    try:
        with interruption.watching():
            return attempt(folder, args.attempt, args.models_dir, log, interruption)
    except Fenced as error:
        print(error, file=sys.stderr)
        return FENCED
    except TunesmithError as error:
        return fail(log, error.code, str(error), error.param)
    except Exception as error:  # noqa: BLE001  the process's boundary: the log must say why it ended
        traceback.print_exc()
        return fail(log, "worker_failed", f"{type(error).__name__}: {error}", None)
    finally:
        log.close()


def attempt(folder: RunFolder, number: int, models_dir: Path | None, log: EventLog, interruption: Interruption) -> int:
    """One attempt from start to end. Raises what the method raises."""
    folder.check_lease(number)
    kind = folder.kind()
    if kind != "fine_tuning" and kind not in KINDS:
        hint = f"There are fine_tuning, {', '.join(KINDS)}."
        raise InvalidRecipe(f"kind: {kind!r} is no kind of job.", hint=hint, param="kind")
    log.emit("phase", phase="loading", message="Starting", pid=os.getpid())

    def should_stop() -> Stop | None:
        wanted = folder.check_lease(number)
        if wanted != "run":
            return wanted
        notice = interruption.take(lambda message: log.emit("warning", message=message))
        return None if notice is None else "interrupt" if notice.is_final else "save"

    def should_leave() -> Literal["pause", "cancel"] | None:
        stop = should_stop()
        return "pause" if stop == "interrupt" else None if stop == "save" else stop

    if kind == "fine_tuning":
        result = fine_tune(folder, log, should_stop, models_dir)
    else:
        base_url, api_key = os.environ["TUNESMITH_BASE_URL"], os.environ.pop("TUNESMITH_JOB_KEY")
        result = KINDS[kind](folder, JobTools(log.emit, should_leave, base_url, api_key))
    if result is not None:
        publish(folder, number, log, result)
    log.sync()
    return INTERRUPTED if result is None and interruption.was_taken else DONE


def fine_tune(
    folder: RunFolder, log: EventLog, should_stop: Callable[[], Stop | None], models_dir: Path | None
) -> dict[str, Any] | None:
    from tunesmith.engine.forked import Forked, can_fork
    from tunesmith.train.memory import told
    from tunesmith.train.methods import METHODS
    from tunesmith.train.sync import synced
    from tunesmith.train.tools import Tools, own_engine

    recipe = folder.recipe()
    missing = [name for name in recipe.secrets if name not in os.environ]
    if missing:
        raise InvalidRecipe(f"The environment has no {', '.join(missing)}.", hint="Set what `secrets` names, then start again.")
    with ExitStack() as stack:
        stack.enter_context(told())
        # First of all: neither threads nor what is computed from here on survive a fork.
        upstream: Callable[..., Any] = own_engine
        if recipe.evaluation.verify and can_fork():
            forked = Forked.make()
            stack.callback(forked.close)
            upstream = partial(own_engine, run=forked.serve)
        emit: Callable[..., Any] = log.emit
        if recipe.tracking:
            from tunesmith.train.tracking import tracked

            emit = stack.enter_context(tracked(recipe, folder, emit))
        copy = stack.enter_context(synced(recipe, folder, lambda message: log.emit("warning", message=message)))
        return METHODS[recipe.method.type](recipe, folder, Tools(emit, should_stop, models_dir, upstream, copy=copy))


def batch(folder: RunFolder, tools: JobTools) -> dict[str, Any] | None:
    from tunesmith.batches.run import run_batch
    from tunesmith.recipes.batch import BatchRecipe

    return run_batch(folder.recipe_as(BatchRecipe), folder, tools)


def eval_run(folder: RunFolder, tools: JobTools) -> dict[str, Any] | None:
    from tunesmith.evals.run import run_eval
    from tunesmith.recipes.eval_run import EvalRunRecipe

    return run_eval(folder.recipe_as(EvalRunRecipe), folder, tools)


KINDS: dict[str, Callable[[RunFolder, JobTools], dict[str, Any] | None]] = {"batch": batch, "eval_run": eval_run}
"""A job's kind -> what does it, for those that ask the desk: one small function each, in this file, that imports what it needs
and reads its recipe by `folder.recipe_as(...)`. It returns the result, or None when it was paused or cancelled."""



def publish(folder: RunFolder, number: int, log: EventLog, result: dict[str, Any]) -> None:
    folder.check_lease(number)
    folder.finish(result)
    log.emit("result", **result)


def fail(log: EventLog, code: str, message: str, param: str | None) -> int:
    """The run's last event; where the disk is too full even for that, standard error says it."""
    print(message, file=sys.stderr)
    try:
        log.emit("error", code=code, message=message, param=param)
        log.sync()
    except StorageFull as error:
        print(error, file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
