"""What the desk asks of an engine, whoever built it. Ours, vLLM's and any OpenAI endpoint are interchangeable behind this.

Knows no processes and no routes. An adapter is named on every engine by its content (`Adapter.name`), never by what people call
it: a version is immutable, and the keys and values that an engine keeps of one can never serve another.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tunesmith.serving.answer import Answer
from tunesmith.types import Quantization

Status = Literal["down", "loading", "ready", "draining"]


@dataclass(frozen=True)
class State:
    """How an engine fares."""

    status: Status
    progress: float = 0.0
    """Of the start, from 0 to 1."""
    stage: str = ""
    """What it does while it starts; why it is down."""
    running: int = 0
    """Sequences that are computed now."""
    waiting: int = 0
    """Sequences that wait for a place."""


@dataclass(frozen=True)
class Adapter:
    """A fine-tuned model's adapter: its folder, the hash of what must lie there, and the precision that it was trained on."""

    path: Path
    content_hash: str
    quantization: Quantization = "none"

    @property
    def name(self) -> str:
        """What every engine calls it."""
        return f"ad-{self.content_hash[:16]}"


class Upstream(Protocol):
    """One base at one precision, and any number of adapters on it."""

    @property
    def in_flight(self) -> int:
        """Answers that were begun through this object and have not ended."""
        ...

    @property
    def need_bytes(self) -> int:
        """Memory that a start will take; 0 when it runs."""
        ...

    @property
    def is_ready(self) -> bool:
        """Would it take a question now?"""
        ...

    async def start(self) -> None:
        """Returns when the engine answers; at once if it does already.

        Raises EngineFailed with the reason, and Busy with code `does_not_fit` when there is no memory for it.
        """
        ...

    async def health(self) -> State: ...

    async def models(self) -> list[str]:
        """The base's id and the engine-side names of the loaded adapters."""
        ...

    async def ensure_adapter(self, adapter: Adapter) -> None:
        """Loads the adapter unless it is loaded. Raises InvalidRequest if its bytes are not as hashed or the engine cannot."""
        ...

    async def drop_adapter(self, adapter: Adapter) -> None:
        """Forgets an adapter as soon as no answer needs it; one that is not loaded is no error."""
        ...

    async def ask(self, path: str, body: dict[str, Any], adapter: Adapter | None = None) -> Answer:
        """POST to `path`, such as /v1/chat/completions; the adapter is loaded first, and stays until the answer has ended.

        The answer names the model as `body["model"]` does. It has begun: an engine that dies before its first byte is an
        EngineFailed from here. Raises EngineFailed when nobody answers, Busy when all places for adapters are taken.
        """
        ...

    async def metrics(self) -> str:
        """The engine's own metrics, as Prometheus reads them; empty when it has none."""
        ...

    async def set_threads(self, num_threads: int) -> None:
        """CPU threads from now on; an engine that cannot change them is left as it is."""
        ...

    async def drain(self, seconds: float) -> None:
        """Takes no new work, and returns when all answers have ended, or after `seconds`."""
        ...

    async def stop(self) -> None: ...
