"""Which engine answers for a base, by the settings: the one table of kinds. Starts nothing."""

from collections.abc import Callable

from tunesmith.models.catalog import Base, find_base
from tunesmith.serving import installs, memory
from tunesmith.serving.driven import Driven, Kind
from tunesmith.serving.embedded import Embedded
from tunesmith.serving.memory import Memory
from tunesmith.serving.openai import OpenAI
from tunesmith.serving.orders import embedded_order, log_of
from tunesmith.serving.processes import EngineProcess
from tunesmith.serving.replicas import Replicas
from tunesmith.serving.vllm import Vllm, VllmOrder
from tunesmith.settings import Settings
from tunesmith.types import Quantization

Make = Callable[[Settings, str, Quantization, int, EngineProcess | None], Kind]
"""Settings, base, precision, number of the replica, and its process if it was started already -> kind."""


def build(
    settings: Settings, base: str, quantization: Quantization, memory: Memory, started: EngineProcess | None = None
) -> Replicas:
    """The upstreams of one base at one precision; `started` is the first one's process.

    Raises NotFound for a base that is not here.
    """
    make, num_replicas = KINDS[settings.engine], 1 if settings.engine == "openai" else settings.replicas
    return Replicas([
        Driven(
            make(settings, base, quantization, number, None if number else started),
            memory=memory, num_places=settings.max_adapters, wait_seconds=settings.place_seconds,
        )
        for number in range(num_replicas)
    ])


def _embedded(settings: Settings, base: str, quantization: Quantization, number: int, started: EngineProcess | None) -> Kind:
    order, found = embedded_order(settings, base, quantization, number), find_base(base, settings.dirs.models)
    need = memory.need_bytes(found, quantization, is_gpu=memory.has_gpu(), is_int8=order.quantize == "int8")
    return Embedded(order, need, started)


def _vllm(settings: Settings, base: str, quantization: Quantization, number: int, started: EngineProcess | None) -> Kind:
    found, has_gpu = find_base(base, settings.dirs.models), memory.has_gpu()
    order = VllmOrder(
        base=found,
        python=settings.vllm_python or installs.python_of("vllm", settings.dirs),
        adapters=settings.dirs.engines / "adapters" / f"{base.replace('/', '--').lstrip('.-')}-{number}",
        log=log_of(settings, base, quantization, number),
        max_adapters=settings.max_adapters,
        max_lora_rank=settings.max_lora_rank,
        tensor_parallel=settings.tensor_parallel,
        quantization=settings.quantization,
        nf4_on_full=settings.nf4_on_full,
        drain_seconds=settings.drain_seconds,
        has_gpu=has_gpu,
        gpus=_gpus(settings, number) if has_gpu else None,
    )
    return Vllm(order, _vllm_need(found, has_gpu=has_gpu, tensor_parallel=settings.tensor_parallel))


def _openai(settings: Settings, base: str, quantization: Quantization, number: int, started: EngineProcess | None) -> Kind:
    assert settings.upstream is not None, "checked by Settings"
    return OpenAI(settings.upstream, settings.upstream_key_env)


KINDS: dict[str, Make] = {"embedded": _embedded, "vllm": _vllm, "openai": _openai}


def _vllm_need(base: Base, *, has_gpu: bool, tensor_parallel: int) -> int:
    """The share of the weights; on a CPU the cache and the processes too. On a GPU vLLM's cache takes what is left."""
    weights = int((base.num_parameters or 0) * (2 if has_gpu else 4) / tensor_parallel)
    return weights + (0 if has_gpu else 2 * memory.GIB + int(memory.cpu_cache_gib() * memory.GIB))


def _gpus(settings: Settings, number: int) -> str | None:
    """The GPUs of a replica, when there are enough for all of them; otherwise vLLM chooses."""
    each = settings.tensor_parallel
    if len(memory.gpu_free_bytes()) < each * settings.replicas:
        return None
    return ",".join(map(str, range(number * each, (number + 1) * each)))
