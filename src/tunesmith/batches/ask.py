"""Asks the desk one request of a batch, as often as it takes. Knows neither files nor the order of requests.

An answer of any status is an answer, but for those that say "not now": a full queue or a reached limit (429) and an engine that
starts (503) are asked again when the answer says so, a desk that cannot be reached until it can, and an engine that broke under
the request (500, 502) some times.
"""

import asyncio
import json
import secrets
import time
from contextlib import suppress
from typing import Any

import aiohttp

from tunesmith.batches.answers import Answered
from tunesmith.completer import AGAIN, BACKGROUND, BROKEN, MAX_BROKEN, retry_after
from tunesmith.runfolder import JobTools

FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0
"""Seconds between two tries of a desk that cannot be reached: the first, doubled each time up to the last."""


class Asker:
    """`stopping` is set when the batch shall end: who waits to ask again then gives up."""

    def __init__(self, session: aiohttp.ClientSession, tools: JobTools, endpoint: str, expires: float, stopping: asyncio.Event):
        self._session = session
        self._url = tools.base_url.removesuffix("/v1") + endpoint
        self._headers = BACKGROUND | {"authorization": f"Bearer {tools.api_key}"}
        self._expires = expires
        self._stopping = stopping
        self._not_before = 0.0

    async def ask(self, line: int, request: dict[str, Any]) -> Answered | None:
        """The answer, or None when the batch stopped before there was one."""
        num_broken, wait = 0, FIRST_WAIT
        while await self._may_ask():
            try:
                async with self._session.post(self._url, json=request["body"], headers=self._headers) as answer:
                    content = await answer.read()
            except aiohttp.ClientConnectorError:
                await self._sleep(wait)  # it stops, or starts: it will be there, or end us
            except (aiohttp.ClientError, TimeoutError) as error:
                num_broken += 1
                if num_broken == MAX_BROKEN or isinstance(error, TimeoutError):
                    return failed(line, request["custom_id"], "request_failed", f"No answer: {error or 'it took too long'}.")
                await self._sleep(wait)
            else:
                num_broken += answer.status in BROKEN
                seconds = wait if answer.status in BROKEN and num_broken < MAX_BROKEN else self._seconds_to_wait(answer)
                if seconds is None:
                    return _answered(line, request["custom_id"], answer, content)
                if answer.status in AGAIN:
                    self._not_before = max(self._not_before, time.monotonic() + seconds)
                else:
                    await self._sleep(seconds)
            wait = min(2 * wait, LONGEST_WAIT)
        return None

    def _seconds_to_wait(self, answer: aiohttp.ClientResponse) -> float | None:
        """After how long to ask again; None when that would not help, or not in time."""
        if answer.status not in AGAIN or answer.headers.get("x-should-retry") == "false":
            return None
        seconds = retry_after(answer.headers)
        if seconds <= 0 and answer.status == 429:
            return None  # a request that is too large for its limits is so for ever
        return None if time.time() + seconds > self._expires else max(seconds, FIRST_WAIT)

    async def _may_ask(self) -> bool:
        """Waits until all may ask again who were told to wait; False when the batch stopped meanwhile."""
        while not self._stopping.is_set() and (seconds := self._not_before - time.monotonic()) > 0:
            await self._sleep(seconds)
        return not self._stopping.is_set()

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def _answered(line: int, custom_id: str, answer: aiohttp.ClientResponse, content: bytes) -> Answered:
    try:
        body = json.loads(content)
    except ValueError:
        return failed(line, custom_id, "invalid_answer", f"The answer, of status {answer.status}, is no JSON.")
    response = {"status_code": answer.status, "request_id": answer.headers.get("x-request-id", ""), "body": body}
    ok = answer.status < 400
    return Answered(line, ok, _row(custom_id, response, None), usage_of(body) if ok else {})


def failed(line: int, custom_id: str, code: str, message: str) -> Answered:
    """A request that has no answer, and why."""
    return Answered(line, False, _row(custom_id, None, {"code": code, "message": message}), {})


def _row(custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None) -> dict[str, Any]:
    return {"id": f"batch_req_{secrets.token_hex(12)}", "custom_id": custom_id, "response": response, "error": error}


def usage_of(body: Any) -> dict[str, int]:
    """Tokens of an answer, whether it calls them as chat does (prompt, completion) or as responses (input, output)."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return {}
    given = usage.get("input_tokens_details") or usage.get("prompt_tokens_details") or {}
    made = usage.get("output_tokens_details") or usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage.get("input_tokens", usage.get("prompt_tokens")) or 0,
        "cached_tokens": given.get("cached_tokens") or 0,
        "output_tokens": usage.get("output_tokens", usage.get("completion_tokens")) or 0,
        "reasoning_tokens": made.get("reasoning_tokens") or 0,
    }
