"""Every error leaves in OpenAI's body, `{"error": {"message", "type", "param", "code"}}`, with the status its client expects."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tunesmith.errors import Busy, Overloaded, QuotaExceeded, RateLimited, StorageFull, TunesmithError

UNION_PARTS = re.compile(r"literal\[.*|constrained-.*|nullable.*|list\[.*|dict\[.*|int|float|str")
"""Parts of a pydantic location that name a branch of a type and not a field."""


def body(
    message: str, *, status: int, param: str | None = None, code: str | None = None, kind: str | None = None
) -> dict[str, Any]:
    """OpenAI's error object; all four keys, or its client shows none of them. `kind`: its type, where the status does not say."""
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    clean = message.encode("utf-8", "replace").decode()
    return {"error": {"message": clean, "type": kind, "param": param, "code": code}}


def response(
    message: str, *, status: int, param: str | None = None, code: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse(body(message, status=status, param=param, code=code), status_code=status, headers=dict(headers or {}))


def from_error(error: TunesmithError) -> JSONResponse:
    """The reply to one of our own errors. A full disk is not worth a client's retry; a busy engine is."""
    headers = {}
    if isinstance(error, StorageFull):
        headers["x-should-retry"] = "false"
    if isinstance(error, Busy):
        headers["retry-after"] = "1"
    if isinstance(error, RateLimited):
        return _too_much(error)
    if isinstance(error, Overloaded):
        headers["retry-after"] = str(error.retry_after)
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return response(str(error), status=error.status, param=error.param, code=error.code, headers=headers)


def _too_much(error: RateLimited) -> JSONResponse:
    """With what is left, and when to ask again; what waiting does not help is not worth a client's retry."""
    headers = dict(error.headers)
    if error.retry_after:
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, QuotaExceeded) or not error.retry_after:
        headers["x-should-retry"] = "false"
    content = body(str(error), status=error.status, param=error.param, code=error.code, kind=error.kind)
    return JSONResponse(content, status_code=error.status, headers=headers)


def install(app: FastAPI) -> None:
    app.add_exception_handler(TunesmithError, _on_tunesmith_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


async def _on_tunesmith_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TunesmithError)
    return from_error(error)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses: unknown paths, methods, bodies that are too large or cannot be read."""
    assert isinstance(error, HTTPException)
    where = f"({request.method} {request.scope['path']})"
    known = {404: (f"Invalid URL {where}.", "unknown_url"), 405: (f"Not allowed here {where}.", "method_not_allowed")}
    message, code = known.get(error.status_code, (str(error.detail), "invalid_request"))
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        code = "request_too_large"
    return response(message, status=error.status_code, code=code, headers=error.headers)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    first = problems[0]
    if first["type"] == "json_invalid":
        return response("The body is not valid JSON.", status=400, code="invalid_json")
    path = field_path(first["loc"], error.body, is_missing=first["type"] == "missing")
    if first["type"] == "extra_forbidden":
        return response(f"Unrecognized request argument supplied: {path}.", status=400, param=path, code="unknown_parameter")
    if first["type"] == "missing":
        return response(f"Missing required parameter: {path}.", status=400, param=path, code="missing_required_parameter")
    same = [problem["msg"] for problem in problems if field_path(problem["loc"], error.body) == path]
    message = f"Invalid {path or 'body'}: {', or '.join(dict.fromkeys(same))}."
    return response(message, status=400, param=path or None, code="invalid_value")


def field_path(location: Sequence[Any], body: Any = None, *, is_missing: bool = False) -> str:
    """`("body", "method", "supervised", "n_epochs", "constrained-int")` -> `method.supervised.n_epochs`.

    What the body does not have where a part stands is the name of a union's branch, and no field, but for the last part of a
    field that is missing.
    """
    path: list[str] = []
    here: Any = body if location[:1] == ("body",) else None
    for part in location[1:]:
        is_branch = isinstance(here, dict) and part not in here and not (is_missing and part == location[-1])
        if is_branch or UNION_PARTS.fullmatch(str(part)):
            continue
        path.append(str(part))
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            here = None
    return ".".join(path)
