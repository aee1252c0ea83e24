"""What a training method may ask of the world around it. The worker builds it; a test builds its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.serving.driven import Driven
from tunesmith.serving.embedded import Embedded
from tunesmith.serving.memory import Memory
from tunesmith.serving.processes import EngineOrder, Run, run_by_name
from tunesmith.serving.upstream import Upstream
from tunesmith.types import Stop

MakeUpstream = Callable[[EngineOrder], Upstream]


def own_engine(order: EngineOrder, run: Run = run_by_name) -> Upstream:
    """An engine for whoever asks; they stop it."""
    return Driven(Embedded(order, run=run), memory=Memory())


@dataclass(frozen=True)
class Tools:
    emit: Callable[..., Any]
    """`emit(type, **fields)` appends one event of the run (see runfolder.py)."""
    should_stop: Callable[[], Stop | None]
    """Asked at every step boundary, once. Raises Fenced when another attempt holds the lease."""
    models_dir: Path | None
    """Where bases other than the built-in one lie."""
    upstream: MakeUpstream = own_engine
    """An engine to prove with what the run made."""
    copy: Callable[[Path], None] = lambda checkpoint: None
    """Called with the folder of each checkpoint once it is durable, to keep it elsewhere too."""
