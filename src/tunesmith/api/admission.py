"""Lets a question pass or not: reserves what it may cost in the accounts of its key and project, and settles when it has ended.

The desk has no tokenizer. It reserves a third of the text's bytes and the tokens asked for; what the engine counted replaces
that, also in streams whose client did not ask for usage. Knows no HTTP: a refusal is an error, headers are a dict.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from fastapi.concurrency import run_in_threadpool

from tunesmith.api.auth import Callers
from tunesmith.api.limits import Account, Refusal, Spent, first_of_month, today
from tunesmith.api.meter import Meter
from tunesmith.api.scopes import REQUEST, check_model, check_scope
from tunesmith.db import jobs, usage
from tunesmith.db.keys import Key
from tunesmith.db.session import Database
from tunesmith.db.usage import Used
from tunesmith.errors import QuotaExceeded, RateLimited
from tunesmith.serving.answer import Answer
from tunesmith.serving.routing import CHAT, COMPLETIONS, EMBEDDINGS, Target

BYTES_PER_TOKEN = 3
MEDIA_TOKENS = 1000
"""What an image or a sound that comes as a data URL is taken for."""
COMPLETION_TOKENS = 256
"""Reserved for an answer whose longest length the client left open."""
COMPLETING = (CHAT, COMPLETIONS)
WORDS = {
    "requests_per_minute": "requests per minute", "tokens_per_minute": "tokens per minute", "tokens_per_day": "tokens per day",
    "tokens_per_month": "tokens per month", "jobs_at_once": "jobs at once",
}


def num_tokens(value: Any) -> int:
    """About how many tokens are in a prompt: strings by their bytes, numbers (token ids) as one each."""
    if isinstance(value, str):
        if value.startswith("data:"):
            return MEDIA_TOKENS
        num_bytes = len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
        return math.ceil(num_bytes / BYTES_PER_TOKEN)
    if isinstance(value, dict):
        return sum(map(num_tokens, value.values()))
    if isinstance(value, list):
        return sum(map(num_tokens, value))
    return 1


def _number(value: Any, default: int) -> int:
    """A count that a client sent; the engine refuses what is none."""
    return value if type(value) is int and 0 <= value < 1 << 31 else default


@dataclass(frozen=True)
class Estimate:
    """Tokens of a question and, at most, of its answer."""

    input_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def estimate(path: str, body: dict[str, Any]) -> Estimate:
    if path not in COMPLETING:
        return Estimate(num_tokens(body.get("input", ())) if path == EMBEDDINGS else 0, 0)
    given = sum(num_tokens(body[name]) for name in ("messages", "prompt", "tools") if name in body)
    longest = _number(body.get("max_completion_tokens", body.get("max_tokens")), COMPLETION_TOKENS)
    return Estimate(given, longest * _number(body.get("n"), 1))


class Ticket:
    """One admitted question. Its reservation ends with the answer that it follows, or here when there is none."""

    def __init__(self, admission: "Admission", key: Key, target: Target, reserved: Estimate, accounts: list[Account]):
        self._admission = admission
        self._key = key
        self._target = target
        self._reserved = reserved
        self._accounts = accounts
        self.headers = ratelimit_headers(accounts)
        self._hides_usage = False

    def asking(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The question, with usage asked for where a stream would leave it out."""
        options = body.get("stream_options") or {}
        if path not in COMPLETING or body.get("stream") is not True or not isinstance(options, dict):
            return body
        self._hides_usage = options.get("include_usage") is not True
        return body | {"stream_options": options | {"include_usage": True}} if self._hides_usage else body

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._refund()

    def _refund(self) -> None:
        """There was no answer: nothing was asked."""
        for account in self._accounts:
            account.take(-1, -self._reserved.tokens)

    def follow(self, answer: Answer) -> Answer:
        """Settles when the answer ends, however it does."""
        answer.told.hides_usage = self._hides_usage
        answer.headers.update(self.headers)
        answer.on_end(lambda: self._end(answer))
        return answer

    def _end(self, answer: Answer) -> None:
        if answer.status >= 400:
            return self._refund()
        counted = self._counted(answer)
        for account in self._accounts:
            account.take(0, counted.tokens - self._reserved.tokens)
        self._admission.meter.add(counted)

    def _counted(self, answer: Answer) -> Used:
        """By the engine's word; without it, as when the client left, by the estimate and the events that were sent."""
        adapter = self._target.adapter.name if self._target.adapter is not None else ""
        used = Used(today(time.time()), self._key.project, self._key.account, self._target.model_id, adapter, requests=1)
        told = answer.told.usage
        if told is None:
            given, made, cached = self._reserved.input_tokens, answer.told.num_events, 0
        else:
            given, made = _number(told.get("prompt_tokens"), 0), _number(told.get("completion_tokens"), 0)
            details = told.get("prompt_tokens_details")
            cached = _number(details.get("cached_tokens"), 0) if isinstance(details, dict) else 0
        return Used(**{**vars(used), "input_tokens": given, "cached_tokens": cached, "output_tokens": made})


class Admission:
    """The accounts of all keys and projects that have limits. Used from one event loop; one per server."""

    def __init__(self, database: Database, callers: Callers, meter: Meter, clock: Callable[[], float] = time.monotonic):
        self._database = database
        self._callers = callers
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self.meter = meter

    async def admit(self, key: Key, target: Target, path: str, body: dict[str, Any]) -> Ticket:
        """Raises Forbidden for a key that may not ask this model, RateLimited and QuotaExceeded with when to ask again."""
        check_scope(key, REQUEST)
        check_model(key, target.model_id, target.base)
        accounts = [account for account in (await self._of_key(key), await self._of_project(key.project)) if account is not None]
        reserved = estimate(path, body)
        wall = time.time()
        for account in accounts:
            if (refusal := account.refusal(reserved.tokens, wall)) is not None:
                raise refused(refusal, account, accounts, reserved.tokens)
        for account in accounts:
            account.take(1, reserved.tokens)
        return Ticket(self, key, target, reserved, accounts)

    async def check_jobs(self, key: Key) -> None:
        """Raises RateLimited when the key, or its project, has as many unfinished jobs as it may."""
        limits = {"key": (key.limits or {}).get("jobs_at_once"), "project": self._project_limits(key.project).get("jobs_at_once")}
        for what, most in limits.items():
            if most is not None and await run_in_threadpool(self._num_jobs, key, what) >= most:
                message = f"The {what} has {most} unfinished jobs, which is its limit."
                raise RateLimited(message, hint="Wait for one to end, or cancel one.", kind="jobs", retry_after=10)

    def _num_jobs(self, key: Key, what: str) -> int:
        with self._database.read() as connection:
            return jobs.count_unfinished(connection, key.project, key.id if what == "key" else None)

    def _project_limits(self, project: str) -> dict[str, int]:
        return self._callers.limits_of(project) or {}

    async def _of_key(self, key: Key) -> Account | None:
        return await self._account(key.account, key.limits, key=key.account)

    async def _of_project(self, project: str) -> Account | None:
        return await self._account(project, self._project_limits(project), project=project)

    async def _account(self, name: str, limits: dict[str, int] | None, **whose: str) -> Account | None:
        """None for who has no limits."""
        if not limits:
            self._accounts.pop(name, None)
            return None
        account = self._accounts.setdefault(name, Account())
        account.refresh(limits, self._clock(), today(time.time()))
        if account.has_budget and account.spent is None:
            await self.meter.flush(touch=False)
            spent = await run_in_threadpool(self._read_spent, whose)
            account.spent = account.spent or spent
        return account

    def _read_spent(self, whose: dict[str, str]) -> Spent:
        day = today(time.time())
        with self._database.read() as connection:
            of_day = usage.tokens_since(connection, day, **whose)
            return Spent(day, of_day, usage.tokens_since(connection, first_of_month(day), **whose))


def refused(refusal: Refusal, account: Account, accounts: list[Account], tokens: int) -> RateLimited:
    """The refusal in OpenAI's words."""
    limit, headers = account.limits[refusal.limit], ratelimit_headers(accounts)
    if refusal.limit in ("tokens_per_day", "tokens_per_month"):
        message = f"You exceeded your current quota of {limit} {WORDS[refusal.limit]}."
        kind, wait = "insufficient_quota", math.ceil(refusal.wait)
        return QuotaExceeded(message, hint="Ask an owner to raise it.", kind=kind, retry_after=wait, headers=headers)
    kind = refusal.limit.partition("_")[0]
    if math.isinf(refusal.wait):
        message = f"Request too large: limit {limit} {WORDS[refusal.limit]}, requested {tokens}."
        return RateLimited(message, hint="Ask for less at once.", kind=kind, retry_after=0, headers=headers)
    wait = max(1, math.ceil(refusal.wait))
    message = f"Rate limit reached: limit {limit} {WORDS[refusal.limit]}."
    hint = f"Please try again in {wait} s."
    return RateLimited(message, hint=hint, kind=kind, retry_after=wait, headers=headers)


def ratelimit_headers(accounts: list[Account]) -> dict[str, str]:
    """OpenAI's headers, of the account with the least left; without a limit there is nothing to tell."""
    headers = {}
    for what in ("requests", "tokens"):
        buckets = [bucket for account in accounts if (bucket := getattr(account, what)) is not None]
        if buckets:
            least = min(buckets, key=lambda bucket: bucket.level)
            headers[f"x-ratelimit-limit-{what}"] = str(least.size)
            headers[f"x-ratelimit-remaining-{what}"] = str(least.remaining)
            headers[f"x-ratelimit-reset-{what}"] = duration(least.full_in)
    return headers


def duration(seconds: float) -> str:
    """As OpenAI writes it: 12ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    return f"{int(seconds // 60)}m{int(seconds % 60)}s"
