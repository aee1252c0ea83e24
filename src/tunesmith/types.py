"""Values that several floors pass around. No behaviour beyond making and comparing them."""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, Any]
"""One message in the OpenAI chat shape: role, content, and tool_calls or tool_call_id where they apply."""

JobStatus = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})

JobKind = Literal["fine_tuning", "batch", "eval_run"]
"""What the queue holds; one table, one life cycle, one supervisor."""

DEFAULT_PROJECT = "proj_default"
"""The project that is there from the start; it owns what a machine's owner makes without naming one."""

Role = Literal["owner", "member", "viewer"]
"""What a key may do in its project, before its scopes narrow it."""

Limits = dict[str, int]
"""Of a key or a project: requests_per_minute, tokens_per_minute, jobs_at_once, tokens_per_day, tokens_per_month."""

Wanted = Literal["run", "pause", "cancel"]
"""What `control.json` asks a worker for."""

Stop = Literal["pause", "cancel", "interrupt", "save"]
"""What a training is asked for at a step boundary: save and leave, leave, save and leave to be started again, save and go on."""

Quantization = Literal["none", "nf4", "int8"]
"""The precision of a base: as stored, NF4 with double quantization (bitsandbytes), or int8 with a scale for each output."""


Usage = dict[str, dict[str, int]]
"""Model -> counts: prompt_tokens, completion_tokens, total_tokens, cached_tokens, invocation_count."""


@dataclass(frozen=True)
class Graded:
    """What a grader says of one answer. `score` is 0 when there are errors (OpenAI's names), which `reason` puts in words.

    `scores` are those of a multi grader's parts, `usage` what judges cost, `sample` what a judge was asked and said.
    """

    score: float
    errors: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    usage: Usage = field(default_factory=dict)
    sample: dict[str, Any] | None = None


def new_id(prefix: str) -> str:
    """A random public id such as `ftjob-` and 24 hexadecimal digits; never used as a path given by a client."""
    return f"{prefix}-{secrets.token_hex(12)}"


def unix_now() -> int:
    """Seconds since 1970, as OpenAI's `created_at` has it."""
    return int(time.time())
