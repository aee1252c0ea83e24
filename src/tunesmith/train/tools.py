"""What a training method may ask of the world around it. The worker builds it; a test builds its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.types import Stop


@dataclass(frozen=True)
class Tools:
    emit: Callable[..., Any]
    """`emit(type, **fields)` appends one event of the run (see runfolder.py)."""
    should_stop: Callable[[], Stop | None]
    """Asked at every step boundary, once. Raises Fenced when another attempt holds the lease."""
    models_dir: Path | None
    """Where bases other than the built-in one lie."""
    copy: Callable[[Path], None] = lambda checkpoint: None
    """Called with the folder of each checkpoint once it is durable, to keep it elsewhere too."""
