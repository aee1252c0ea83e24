"""The input file of a batch: one request a line, each of them whole. All problems are told, up to a hundred, with their lines."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_REQUESTS = 50_000
MAX_BYTES = 200 * 1024 * 1024
"""OpenAI's limits."""
MAX_PROBLEMS = 100
MAX_ID = 512
FIELDS = frozenset({"custom_id", "method", "url", "body"})
WITHOUT_MODEL = frozenset({"/v1/moderations"})
"""Endpoints whose requests need not name a model: the server's owner names it."""

Problem = dict[str, Any]
"""OpenAI's shape: code, message, param, line (from 1, or None for the whole file)."""


@dataclass
class Found:
    """`model` is the one that all requests name, or None when they name several."""

    num_requests: int = 0
    problems: list[Problem] = field(default_factory=list)
    models: set[str] = field(default_factory=set)

    @property
    def model(self) -> str | None:
        return next(iter(self.models)) if len(self.models) == 1 else None


def check(path: Path, endpoint: str) -> Found:
    """Reads the file line by line, so that a large one costs no memory but its ids."""
    found, seen = Found(), dict[str, int]()
    if os.path.getsize(path) > MAX_BYTES:
        found.problems.append(_problem("file_too_large", f"The file is larger than {MAX_BYTES // 2**20} MB.", None, None))
        return found
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                found.num_requests += 1
                told = _look_at(line, number, endpoint, seen, found.models)
                found.problems.extend(_problem(*each, line=number) for each in told)
            if len(found.problems) >= MAX_PROBLEMS or found.num_requests > MAX_REQUESTS:
                break
    if found.num_requests > MAX_REQUESTS:
        found.problems.append(_problem("too_many_requests", f"The file has more than {MAX_REQUESTS:,} requests.", None, None))
    if not found.num_requests:
        found.problems.append(_problem("empty_file", "The file has no requests.", None, None))
    del found.problems[MAX_PROBLEMS:]
    return found


def _problem(code: str, message: str, param: str | None, line: int | None) -> Problem:
    return {"code": code, "message": message, "param": param, "line": line}


def _look_at(
    line: bytes, number: int, endpoint: str, seen: dict[str, int], models: set[str]
) -> list[tuple[str, str, str | None]]:
    """(code, message, param) of what is wrong with one line; remembers its id and its model."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return [("invalid_json_line", "This line is not valid JSON.", None)]
    if not isinstance(request, dict):
        return [("invalid_json_line", "This line is not a JSON object.", None)]
    wrong = [("unknown_parameter", f"Unknown field: {name[:80]!r}.", name[:80]) for name in sorted(request.keys() - FIELDS)]
    return wrong + _of_id(request, number, seen) + _of_address(request, endpoint) + _of_body(request, endpoint, models)


def _of_id(request: dict[str, Any], number: int, seen: dict[str, int]) -> list[tuple[str, str, str | None]]:
    custom_id = request.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_ID:
        code = "invalid_custom_id" if "custom_id" in request else "missing_required_parameter"
        return [(code, f"custom_id must be a string of 1 to {MAX_ID} characters.", "custom_id")]
    first = seen.setdefault(custom_id, number)
    if first == number:
        return []
    return [("duplicate_custom_id", f"The custom_id {custom_id[:80]!r} stands on line {first} already.", "custom_id")]


def _of_address(request: dict[str, Any], endpoint: str) -> list[tuple[str, str, str | None]]:
    wrong: list[tuple[str, str, str | None]] = []
    if request.get("method") != "POST":
        code = "invalid_method" if "method" in request else "missing_required_parameter"
        wrong.append((code, 'method must be "POST".', "method"))
    if request.get("url") != endpoint:
        code = "invalid_url" if "url" in request else "missing_required_parameter"
        wrong.append((code, f"url must be the batch's endpoint, {endpoint}.", "url"))
    return wrong


def _of_body(request: dict[str, Any], endpoint: str, models: set[str]) -> list[tuple[str, str, str | None]]:
    body = request.get("body")
    if not isinstance(body, dict):
        code = "invalid_body" if "body" in request else "missing_required_parameter"
        return [(code, "body must be an object: the request's parameters.", "body")]
    wrong: list[tuple[str, str, str | None]] = []
    if isinstance(body.get("model"), str) and body["model"]:
        models.add(body["model"])
    elif "model" in body or endpoint not in WITHOUT_MODEL:
        wrong.append(("missing_required_parameter", "body.model must name a model.", "body.model"))
    if body.get("stream"):
        wrong.append(("invalid_value", "body.stream: a batch has no streams; leave it out.", "body.stream"))
    if body.get("background"):
        wrong.append(("invalid_value", "body.background: a batch is in the background; leave it out.", "body.background"))
    return wrong
