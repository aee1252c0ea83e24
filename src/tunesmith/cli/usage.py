"""`tunesmith usage`: requests and tokens per day, read from a data directory, also while a server runs on it."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import typer

from tunesmith.cli.database import opened
from tunesmith.cli.nothing import tell_if_none
from tunesmith.errors import InvalidRequest

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def usage(
    by: list[str] = typer.Option(None, metavar="key|project|model|adapter", help="Count apart by this; may be repeated."),
    project: str = typer.Option(None, help="Id or name of a project [default: all]."),
    start: str = typer.Option(None, metavar="DAY", help="First day, such as 2026-11-01 [default: 30 days ago]."),
    end: str = typer.Option(None, metavar="DAY", help="Last day [default: today]. Days are UTC's."),
    data_dir: Path = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder."),
    as_csv: bool = typer.Option(False, "--csv", help="Print CSV."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show what was used: requests and tokens in, cached and out, per day. A server writes what it counts every second."""
    from tunesmith.db import projects
    from tunesmith.db import usage as rows
    from tunesmith.schemas.usage import DAYS, from_used, to_csv, to_groups

    groups = to_groups(",".join(by or ()))
    last = _day(end) if end else datetime.now(UTC).date()
    first = _day(start) if start else last - timedelta(days=DAYS - 1)
    with opened(data_dir) as database, database.read() as connection:
        whose = None if project is None else projects.find(connection, project).id
        found = rows.report(connection, by=groups, start=first.isoformat(), end=last.isoformat(), project=whose)
    shown = [from_used(used, groups) for used in found]
    if as_json:
        print(json.dumps([row.model_dump() for row in shown], indent=1))
    elif as_csv:
        print(to_csv(shown, groups), end="")
    else:
        tell_if_none(shown, f"Nothing was used from {first} to {last}.")
        for row in shown:
            names = "  ".join(str(getattr(row, name)) or "-" for name in groups)
            print(
                f"{row.day}  {row.requests:>8} requests  {row.input_tokens:>10} in  {row.cached_tokens:>10} cached  "
                f"{row.output_tokens:>10} out  {names}"
            )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(f"{text!r} is no day.", hint="Write it like 2026-11-01.", param="start") from error
