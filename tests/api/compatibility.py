"""docs/compatibility.md, from what a running server did with each operation and field of OpenAI's specification."""

import re
from typing import Any

from api.openai_spec import Operation, operations, spec
from api.probes import HONOURED, NOT_THERE, Finding, Prober, make_things, with_bodies

MARKS = {HONOURED: "yes", NOT_THERE: "not there"}


def page(served: Any) -> str:
    """The whole page. `served` is a running server of the tests."""
    _, _, ours = served.request("GET", "/openapi.json")
    prober = Prober(served.port, served.key, make_things(served.client()))
    refused = {operation: why for operation in with_bodies() if (why := prober.refusal(operation))}
    found = {operation: prober.findings(operation) for operation in with_bodies() if operation not in refused}
    have = {(method.upper(), _shape(path)) for path, methods in ours["paths"].items() for method in methods}
    lines = [_head(), "## Operations", "", "| operation | here |", "|---|---|"]
    lines += [f"| `{operation}` | {_here(operation, have, refused)} |" for operation in operations()]
    for operation, findings in found.items():
        lines += ["", f"## {operation}", "", "| field | honoured | why not |", "|---|---|---|"]
        lines += [_row(finding) for finding in findings]
    return "\n".join(lines) + "\n"


def _head() -> str:
    version = spec()["info"]["version"]
    return f"""# Compatibility with OpenAI's API

Written by `python scripts/write_compatibility.py`, which starts a server with the built-in base and sends it each field of
OpenAI's specification {version} alone, beside the least that its operation needs; a test compares this page with what
the server does. `yes` means that it was taken; what is refused, is refused with 400, the field's name and the sentence below.
A field that nobody knows is always refused. How well an answer keeps to the specification is judged in every test of the API.
"""


def _shape(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "{}", path)


def _here(operation: Operation, have: set[tuple[str, str]], refused: dict[Operation, str]) -> str:
    if (operation.method, _shape(f"/v1{operation.path}")) not in have:
        return "not there"
    return f"no: {refused[operation]}" if operation in refused else "yes"


def _row(finding: Finding) -> str:
    field = f"`{finding.field}`" + (f" = `{finding.tried}`" if finding.tried else "")
    return f"| {field} | {MARKS.get(finding.verdict, 'no')} | {finding.reason.replace('|', '/')} |"
