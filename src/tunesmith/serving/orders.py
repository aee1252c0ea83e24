"""What our own engine is told, by the settings. Light, so that `serve` can start the first one before it imports the rest."""

from pathlib import Path

from tunesmith.serving import memory
from tunesmith.serving.processes import EngineOrder
from tunesmith.settings import Settings
from tunesmith.types import Quantization


def embedded_order(settings: Settings, base: str, quantization: Quantization, number: int = 0) -> EngineOrder:
    """`number` is the replica's."""
    threads = settings.threads if settings.replicas == 1 else threads_of(settings, memory.num_cores(), is_training=False)
    quantize = settings.quantize if quantization == "none" else "none"
    log = log_of(settings, base, quantization, number)
    return EngineOrder(base, quantization, settings.dirs.models, threads, log, quantize)


def threads_of(settings: Settings, cores: int, *, is_training: bool) -> int:
    """CPU threads of one engine: the cores are shared among replicas, and half of them are left to a training."""
    total = settings.threads or cores
    return max(1, total // settings.replicas // (2 if is_training else 1))


def log_of(settings: Settings, base: str, quantization: Quantization, number: int) -> Path:
    name = base.replace("/", "--").lstrip(".-")
    return settings.dirs.logs / f"engine-{name}-{quantization}{f'-{number}' if number else ''}.log"
