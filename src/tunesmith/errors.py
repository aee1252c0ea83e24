"""Every error that Tunesmith raises on purpose. Knows nothing of HTTP or SQL; carries what both need.

    TunesmithError            something is wrong, said in one sentence, with the next step
    +- InvalidRequest   400   what was asked cannot be done as asked (`param` names the field)
    |  +- InvalidRecipe       a field of a recipe is wrong
    |  +- InvalidData         a row, a file or a template is wrong
    |  +- ContextTooLong      prompt and completion do not fit into the model's positions
    +- Unauthorized     401   no key, or a wrong one
    +- Forbidden        403   a key that may not do this
    +- NotFound         404   a model, file, job or key that does not exist
    +- StorageFull      507   the disk is full; nothing was lost
    +- DeadlineExceeded 408   the answer was not done in the time that was given for it
    +- Overloaded       429   too many requests wait (`retry_after`: seconds after which to ask again)
    |  +- RateLimited         a key or its project asked more often than it may
    |  +- QuotaExceeded       a key or its project has used its tokens of the day or month
    +- Busy             503   the engine is starting, draining or out of slots; the database or the storage does not answer
    +- EngineFailed     502   the engine died or answered nonsense
    +- PortInUse              the address is taken
    +- TrainingFailed         a run stopped for a reason that a retry would meet again
    +- Interrupted            the machine is taken away, or the process was told to end: what was done is saved, start it again
    +- CheckpointInvalid      a checkpoint is torn or was altered
    +- Fenced                 another attempt holds the lease: stop, publish nothing
"""


class TunesmithError(Exception):
    """`message` is one sentence, `hint` says what to do next, `param` names the field, `code` is stable for programs."""

    code = "error"
    status = 500

    def __init__(self, message: str, *, hint: str = "", param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InvalidRequest(TunesmithError):
    code = "invalid_request"
    status = 400


class InvalidRecipe(InvalidRequest):
    code = "invalid_recipe"


class InvalidData(InvalidRequest):
    code = "invalid_training_file"


class ContextTooLong(InvalidRequest):
    code = "context_length_exceeded"


class Unauthorized(TunesmithError):
    code = "invalid_api_key"
    status = 401


class Forbidden(TunesmithError):
    code = "missing_scope"
    status = 403


class NotFound(TunesmithError):
    code = "not_found"
    status = 404


class StorageFull(TunesmithError):
    code = "disk_full"
    status = 507


class DeadlineExceeded(TunesmithError):
    code = "deadline_exceeded"
    status = 408


class Overloaded(TunesmithError):
    code = "engine_overloaded"
    status = 429
    retry_after = 1


class RateLimited(Overloaded):
    """`kind` is what there was too much of: requests, tokens or jobs; 0 for `retry_after` says that waiting does not help.

    `headers` say what is left.
    """

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, hint: str, kind: str, retry_after: int, headers: dict[str, str] | None = None):
        super().__init__(message, hint=hint)
        self.kind = kind
        self.retry_after = retry_after
        self.headers = headers or {}


class QuotaExceeded(RateLimited):
    code = "insufficient_quota"


class Busy(TunesmithError):
    code = "engine_busy"
    status = 503


class EngineFailed(TunesmithError):
    code = "engine_failed"
    status = 502


class PortInUse(TunesmithError):
    code = "port_in_use"


class TrainingFailed(TunesmithError):
    code = "training_failed"


class Interrupted(TunesmithError):
    code = "interrupted"


class CheckpointInvalid(TunesmithError):
    code = "checkpoint_invalid"


class Fenced(TunesmithError):
    code = "fenced"
