"""Batches on the wire: what a client orders, what that is as an order and a recipe, and what it is told, in OpenAI's words."""

from typing import Any, Literal

from pydantic import field_validator

from tunesmith.db.jobs import Job
from tunesmith.recipes.batch import BatchRecipe, Endpoint
from tunesmith.schemas.common import Body, Sparse, Wire
from tunesmith.schemas.fields import check_metadata
from tunesmith.schemas.files import ExpiresAfter

WINDOW_SECONDS = {"24h": 24 * 3600}

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
ENDS: dict[str, Status] = {"succeeded": "completed", "failed": "failed", "cancelled": "cancelled"}
"""A job's word for its end -> a batch's."""


class BatchCreate(Body):
    input_file_id: str
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None

    @field_validator("metadata")
    @classmethod
    def _check_metadata(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        check_metadata(value)
        return value


class BatchError(Wire):
    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchErrors(Wire):
    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(Wire):
    total: int = 0
    completed: int = 0
    failed: int = 0


class CachedTokens(Wire):
    cached_tokens: int


class ReasoningTokens(Wire):
    reasoning_tokens: int


class BatchUsage(Wire):
    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class Batch(Sparse):
    """OpenAI's object; what is not there yet is left out, as its specification wants it."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: Endpoint
    model: str | None = None
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts
    usage: BatchUsage | None = None
    metadata: dict[str, str] | None = None


def to_recipe(body: BatchCreate, *, now: int, concurrency: int) -> BatchRecipe:
    return BatchRecipe(endpoint=body.endpoint, expires=now + WINDOW_SECONDS[body.completion_window], concurrency=concurrency)


def to_order(body: BatchCreate) -> dict[str, Any]:
    return body.model_dump(mode="json", exclude={"metadata"})


def status_of(job: Job) -> Status:
    result = job.result or {}
    if job.is_finished:
        return "expired" if result.get("outcome") == "expired" else ENDS[job.status]
    if job.wanted == "cancel":
        return "cancelling"
    if "finalizing_at" in result:
        return "finalizing"
    return "validating" if job.started is None else "in_progress"


def from_row(job: Job) -> Batch:
    result, status = job.result or {}, status_of(job)
    ended: dict[str, Any] = {f"{status}_at": job.finished} if job.is_finished else {}
    return Batch(
        id=job.id,
        endpoint=job.recipe["endpoint"],
        model=result.get("model"),
        errors=_errors(job) if status == "failed" else None,
        input_file_id=job.order["input_file_id"],
        completion_window=job.order["completion_window"],
        status=status,
        output_file_id=result.get("output_file_id"),
        error_file_id=result.get("error_file_id"),
        created_at=job.created,
        in_progress_at=job.started,
        expires_at=job.recipe["expires"],
        finalizing_at=result.get("finalizing_at"),
        cancelling_at=result.get("cancelling_at") or (job.finished if status == "cancelled" else None),
        request_counts=RequestCounts(**result.get("request_counts", {})),
        usage=_usage(result["usage"]) if "usage" in result else None,
        metadata=job.metadata,
        **ended,
    )


def _errors(job: Job) -> BatchErrors:
    error = job.error or {"code": "failed", "message": "The batch failed."}
    rows = error.get("data") or [{name: error.get(name) for name in ("code", "message", "param")}]
    return BatchErrors(data=[BatchError(**row) for row in rows])


def _usage(counts: dict[str, int]) -> BatchUsage:
    return BatchUsage(
        input_tokens=counts["input_tokens"],
        input_tokens_details=CachedTokens(cached_tokens=counts["cached_tokens"]),
        output_tokens=counts["output_tokens"],
        output_tokens_details=ReasoningTokens(reasoning_tokens=counts["reasoning_tokens"]),
        total_tokens=counts["input_tokens"] + counts["output_tokens"],
    )
