"""What a training method may ask of the world around it. The worker builds it; a test builds its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Tools:
    emit: Callable[..., Any]
    """`emit(type, **fields)` appends one event of the run (see runfolder.py)."""
    should_stop: Callable[[], Literal["pause", "cancel"] | None]
    """Asked at every step boundary. Raises Fenced when another attempt holds the lease."""
    models_dir: Path | None
    """Where bases other than the built-in one lie."""
