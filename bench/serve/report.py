"""Rows of figures: ratios within a round, the table on the terminal, JSON lines, and the section of docs/results.md."""

import json
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

BEGIN, END = "<!-- bench-serve: begin -->", "<!-- bench-serve: end -->"
"""Around the section of `bench.serve`; other benches have their own name there."""


@dataclass(frozen=True)
class Row:
    """One comparison: ours against a peer, or against ourselves in another state."""

    measurement: str
    load: str
    peer: str
    """What `theirs` is."""
    ours: float | None = None
    theirs: float | None = None
    unit: str = "tok/s"
    ratio: float | None = None
    """Median over rounds of ours / theirs, both of the same round."""
    at_least: float | None = None
    at_most: float | None = None
    """Targets of the ratio; of `ours` itself where there is no ratio."""
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Is the target met? None where there is none, or where the other side is missing: that is neither met nor missed."""
        if self.at_least is None and self.at_most is None:
            return None
        value = self.ours if self.peer == "-" else self.ratio
        if value is None:
            return None if self.ours is not None else False
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def target(self) -> str:
        bounds = [("at least", self.at_least), ("at most", self.at_most)]
        return ", ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Of pairs that were measured in the same round. Raises ValueError when the rounds differ in number."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def compared(
    measurement: str, load: str, peer: str, ours: Sequence[float], theirs: Sequence[float], *, unit: str = "tok/s",
    at_least: float | None = None, at_most: float | None = None, note: str = "",
) -> Row:
    """A row of two series of rounds; a peer that failed in some round has no ratio."""
    ratio = median_ratio(ours, theirs) if ours and len(ours) == len(theirs) else None
    value, other = (statistics.median(series) if series else None for series in (ours, theirs))
    return Row(measurement, load, peer, value, other, unit, ratio, at_least, at_most, note)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


HEAD = ("measurement", "load", "ours", "against", "theirs", "unit", "ratio", "target", "holds", "note")
VERDICT = {None: "", True: "yes", False: "NO"}


def cells(row: Row) -> tuple[str, ...]:
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    verdict = "?" if row.target and row.holds is None else VERDICT[row.holds]
    figures = (_number(row.ours), row.peer, _number(row.theirs), row.unit, ratio)
    return (row.measurement, row.load, *figures, row.target, verdict, row.note)


def plain(rows: Iterable[Row]) -> str:
    """For the terminal, in columns."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown(rows: Iterable[Row]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *map(cells, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def write_json_lines(path: Path, rows: Iterable[Row]) -> None:
    """Adds to the file: measurements may be taken one by one. `batch` tells which rows were written together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    batch = time.time_ns()
    with open(path, "a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(asdict(row) | {"batch": batch}) + "\n")


def read_json_lines(path: Path) -> list[Row]:
    """The newest rows of each measurement, in the order in which the measurements were first taken."""
    newest: dict[str, list[Row]] = {}
    batches: dict[str, int] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        batch, row = fields.pop("batch"), Row(**fields)
        if batches.get(row.measurement) != batch:
            batches[row.measurement], newest[row.measurement] = batch, []
        newest[row.measurement].append(row)
    return [row for rows in newest.values() for row in rows]


def replace_section(page: str, section: str, bench: str = "bench-serve") -> str:
    """The page with `section` between the bench's markers. Raises ValueError when they are not there once, in order."""
    opening, closing = (mark.replace("bench-serve", bench) for mark in (BEGIN, END))
    before, begin, rest = page.partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end or opening in after or closing in after:
        raise ValueError(f"The page needs the markers {opening} and {closing}, once each.")
    return f"{before}{opening}\n{section.strip()}\n{closing}{after}"
