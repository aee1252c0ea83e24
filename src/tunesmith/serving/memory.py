"""Does an engine fit? What it will need, from the files of its base, against what is free, less what starting ones were promised.

Imports no torch: asks the kernel, and `nvidia-smi` where there is one.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.errors import Busy
from tunesmith.models.catalog import Base
from tunesmith.types import Quantization

GIB = 1024**3
OVERHEAD_BYTES = int(0.7 * GIB)
"""A process that imported torch, and its buffers."""
CACHE_BYTES_PER_POSITION_AND_WIDTH = 64
"""Keys and values of a base, for each of its positions and units of its width: 16 rows of a tenth of the layers' usual size."""
MAX_CACHE_BYTES = 2 * GIB

BYTES_PER_PARAMETER: dict[tuple[Quantization, bool], float] = {
    ("none", False): 4.0,
    ("none", True): 2.0,
    ("nf4", False): 1.2,
    ("nf4", True): 0.8,
    ("int8", False): 1.8,
    ("int8", True): 1.3,
}
"""(precision, on a GPU) -> bytes. NF4 keeps embeddings and norms whole, which is a sixth of the numbers of a usual base."""


def need_bytes(base: Base, quantization: Quantization, *, is_gpu: bool, is_int8: bool = False) -> int:
    """Memory that an embedded engine for the base takes: weights, cache, and the process. Unreadable weights count as none.

    int8 weights lie beside the full ones, which prompts are computed with.
    """
    per_parameter = BYTES_PER_PARAMETER[quantization, is_gpu] + (1.0 if is_int8 else 0.0)
    cache = min(MAX_CACHE_BYTES, CACHE_BYTES_PER_POSITION_AND_WIDTH * base.max_positions * base.hidden_size)
    return int(per_parameter * (base.num_parameters or 0)) + cache + OVERHEAD_BYTES


@functools.cache
def has_gpu() -> bool:
    """Is there an NVIDIA GPU that a driver runs?"""
    return bool(gpu_free_bytes())


def gpu_free_bytes() -> list[int]:
    """Free memory of each GPU; empty without one."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(line) * 1024**2 for line in told.stdout.split() if line.isdigit()] if told.returncode == 0 else []


def free_bytes() -> int:
    """Memory that a new engine could take: the largest free GPU's, or the kernel's estimate, within the control group's limit."""
    gpus = gpu_free_bytes()
    if gpus:
        return max(gpus)
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    limit = _group_free()
    return available if limit is None else min(available, limit)


def _group_free() -> int | None:
    """What the control group (version 2) has left, caches that can be given back not counted; None without a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if limit == "max" else int(limit) - used + int(stat.get("inactive_file", 0))


class Memory:
    """What may still be promised. An engine that is ready holds its memory, and is seen in what is free."""

    def __init__(self, free: Callable[[], int] = free_bytes):
        self._free = free
        self._promised = 0

    def check(self, label: str, need: int) -> None:
        """Raises Busy with code `does_not_fit` and the figures."""
        free = self._free() - self._promised
        if need > free:
            raise Busy(
                f"{label} does not fit: it needs about {need / GIB:.1f} GiB, and {max(0, free) / GIB:.1f} GiB are free"
                + (f" beside {self._promised / GIB:.1f} GiB for engines that start." if self._promised else "."),
                hint="Remove another base (`tunesmith models remove`), or serve a smaller one, or use --quantize int8 or NF4.",
                code="does_not_fit",
            )

    @contextmanager
    def promised(self, label: str, need: int) -> Iterator[None]:
        """Held while an engine starts. Raises Busy as `check` does."""
        self.check(label, need)
        self._promised += need
        try:
            yield
        finally:
            self._promised -= need


def num_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_cache_gib() -> float:
    """GiB that vLLM keeps for keys and values on a CPU: its own variable, or 2."""
    return float(os.environ.get("VLLM_CPU_KVCACHE_SPACE", 2))
