"""`tunesmith evals list|show|run|cancel`: evals of a server and their runs, through the openai client.

`tunesmith eval` (cli/eval.py) is something else: it measures a model of this machine without a server.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tunesmith.cli.nothing import tell_if_none

if TYPE_CHECKING:
    import openai

app = typer.Typer(no_args_is_help=True, help="Evals of a server, and their runs.", add_completion=False, rich_markup_mode=None)

DATA_DIR = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder; a passing key is made there.")
URL = typer.Option(None, help="The server, such as http://127.0.0.1:8040/v1.")
KEY = typer.Option(None, help="API key; OPENAI_API_KEY when not given.")
JSON = typer.Option(False, "--json", help="Print JSON.")
EVAL = typer.Argument(..., metavar="EVAL", help="Id of an eval, eval-...")
OPEN = ("queued", "in_progress")
POLL_SECONDS = 0.5


@app.command("list")
def list_evals(
    limit: int = typer.Option(20, min=1, max=100, help="Newest so many."),
    data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON,
) -> None:
    """List evals, newest first."""
    from tunesmith.cli.remote import connect

    with connect(url, key, data_dir) as client:
        found = [each.to_dict() for each in client.evals.list(limit=limit, order="desc").data]
    if as_json:
        print(json.dumps(found, indent=1))
        return
    tell_if_none(found, "No evals yet: the openai client creates them, `client.evals.create(...)`.")
    for each in found:
        print(f"{each['id']}  {each['name']}")


@app.command()
def show(
    eval_id: str = EVAL,
    run: str = typer.Option(None, help="One run of it, with its items that did not pass."),
    data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON,
) -> None:
    """Show an eval and its newest runs, or one run."""
    from tunesmith.cli.remote import connect

    with connect(url, key, data_dir) as client:
        found = _with_runs(client, eval_id) if run is None else _with_items(client, eval_id, run)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for each in found["runs"]:
        print(_line(each))
    for item in found.get("items", []):
        print(f"  row {item['datasource_item_id']}: {item['status']}  {_why(item)}")


def _with_runs(client: "openai.OpenAI", eval_id: str) -> dict[str, Any]:
    whole = client.evals.retrieve(eval_id).to_dict()
    return whole | {"runs": [each.to_dict() for each in client.evals.runs.list(eval_id, order="desc").data]}


def _with_items(client: "openai.OpenAI", eval_id: str, run_id: str) -> dict[str, Any]:
    run = client.evals.runs.retrieve(run_id, eval_id=eval_id).to_dict()
    items = (item.to_dict() for item in client.evals.runs.output_items.list(run_id, eval_id=eval_id, limit=100))
    return {"runs": [run], "items": [item for item in items if item["status"] != "pass"]}


@app.command("run")
def run_eval(
    eval_id: str = EVAL,
    data_source: Path = typer.Argument(..., help="JSON file with OpenAI's data_source of a run."),
    model: str = typer.Option(None, help="Who answers, instead of the file's model."),
    name: str = typer.Option("", help="A name for people."),
    data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON,
) -> None:
    """Run an eval and wait for its end; the exit status is 1 when it did not complete."""
    from tunesmith.cli.remote import connect

    source = _read(data_source) | ({} if model is None else {"model": model})
    with connect(url, key, data_dir) as client:
        run = client.evals.runs.create(eval_id, name=name, data_source=source)
        found = _ended(client, run.to_dict(), quiet=as_json)
    print(json.dumps(found, indent=1) if as_json else _line(found))
    raise typer.Exit(0 if found["status"] == "completed" else 1)


@app.command()
def cancel(
    eval_id: str = EVAL,
    run: str = typer.Argument(..., metavar="RUN", help="Id of a run, evalrun-..."),
    data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON,
) -> None:
    """Cancel a run; what it has done is kept."""
    from tunesmith.cli.remote import connect

    with connect(url, key, data_dir) as client:
        found = client.evals.runs.cancel(run, eval_id=eval_id).to_dict()
    print(json.dumps(found, indent=1) if as_json else f"{run} is {found['status']}.")


def _read(path: Path) -> dict[str, Any]:
    """Raises InvalidRequest for a file that holds no JSON object."""
    from tunesmith.errors import InvalidRequest

    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} cannot be read as JSON: {error}.", hint="See docs/evals.md.") from error
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path} holds no JSON object.", hint="See docs/evals.md.")
    return value


def _ended(client: "openai.OpenAI", run: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    from rich.progress import Progress

    with Progress(disable=quiet) as bars:
        bar = bars.add_task("Rows", total=None)
        while run["status"] in OPEN:
            time.sleep(POLL_SECONDS)
            run = client.evals.runs.retrieve(run["id"], eval_id=run["eval_id"]).to_dict()
            bars.update(bar, completed=run["result_counts"]["total"])
    return run


def _line(run: dict[str, Any]) -> str:
    counts = run["result_counts"]
    told = f"{counts['passed']} of {counts['total']} passed, {counts['failed']} failed, {counts['errored']} without a grade"
    return f"{run['id']}  {run['status']:<11}  {told}  {run['model']}  {run['error']['message']}".rstrip()


def _why(item: dict[str, Any]) -> str:
    failed = [f"{result['name']} {result['score']:g}" for result in item["results"] if not result["passed"]]
    return item["sample"]["error"]["message"] or ", ".join(failed)
