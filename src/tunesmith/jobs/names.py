"""How the desk names what a run makes. Pure: a job's model has the same name before it is made, while it is, and after."""

import hashlib
import string

from tunesmith.schemas.common import ORGANIZATION

ALPHABET = string.digits + string.ascii_letters
TAIL = 8


def fine_tuned_id(base: str, suffix: str | None, job_id: str) -> str:
    """`ft:{base}:{organization}:{suffix}:{8 characters}`, as OpenAI builds it; the characters follow from the job's id."""
    number = int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:16])
    tail = ""
    for _ in range(TAIL):
        number, digit = divmod(number, len(ALPHABET))
        tail += ALPHABET[digit]
    return f"ft:{base}:{ORGANIZATION}:{(suffix or '').replace(' ', '-')}:{tail}"


def checkpoint_id(model: str, step: int) -> str:
    """The name of what a model was at the end of an epoch, after so many optimizer steps."""
    return f"{model}:ckpt-step-{step}"
