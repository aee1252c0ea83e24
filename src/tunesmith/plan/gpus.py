"""The GPUs that people rent or own: memory as the driver reports it, bandwidth, peak of dense products. Knows no prices.

Memory: nvidia-smi's MiB, which is not the number on the box (a "48 GB" L40S has 46,068 MiB). Peak: dense tensor TFLOPS with fp32
accumulation, from the makers' datasheets; the A10G's is AWS's figure.
"""

from typing import NamedTuple

from tunesmith.errors import NotFound

GIB = 1024**3


class Gpu(NamedTuple):
    """One kind of GPU."""

    name: str
    mib: int
    bandwidth_gb: float
    """GB/s of its memory."""
    tflops: float
    """Dense, in the best 16-bit format that it has."""
    capability: float
    """CUDA compute capability: bf16 and FlashAttention 2 from 8.0, fp8 from 8.9."""
    utilisation: float
    """Share of the peak that training reaches in transformers with packed rows and without compiling (see `hours.py`)."""

    @property
    def gib(self) -> float:
        return self.mib / 1024

    @property
    def has_bf16(self) -> bool:
        return self.capability >= 8.0


OLD, USUAL = 0.25, 0.45
"""Utilisation: fp16 on T4 and V100; bf16 from Ampere on, between the 0.49 (eager) and 0.62 (compiled) of torchtune's A100
runs."""

GPUS: dict[str, Gpu] = {gpu.name: gpu for gpu in (
    Gpu("T4", 15360, 320, 65, 7.5, OLD),
    Gpu("V100-16GB", 16384, 900, 125, 7.0, OLD),
    Gpu("V100-32GB", 32768, 900, 125, 7.0, OLD),
    Gpu("RTX3060", 12288, 360, 25.5, 8.6, USUAL),
    Gpu("A10", 23028, 600, 125, 8.6, USUAL),
    Gpu("A10G", 22888, 600, 70, 8.6, USUAL),
    Gpu("L4", 23034, 300, 121, 8.9, USUAL),
    Gpu("RTX3090", 24576, 936, 71, 8.6, USUAL),
    Gpu("RTX4090", 24564, 1008, 165, 8.9, USUAL),
    Gpu("RTX5090", 32607, 1792, 210, 12.0, USUAL),
    Gpu("A40", 46068, 696, 149.7, 8.6, USUAL),
    Gpu("RTXA6000", 49140, 768, 154.8, 8.6, USUAL),
    Gpu("L40", 46068, 864, 181, 8.9, USUAL),
    Gpu("L40S", 46068, 864, 362, 8.9, USUAL),
    Gpu("RTX6000Ada", 49140, 960, 364, 8.9, USUAL),
    Gpu("A100-40GB", 40960, 1555, 312, 8.0, USUAL),
    Gpu("A100-80GB", 81920, 2039, 312, 8.0, USUAL),
    Gpu("RTXPRO6000", 97887, 1792, 500, 12.0, USUAL),
    Gpu("H100-PCIe", 81559, 2000, 756, 9.0, USUAL),
    Gpu("H100-NVL", 95830, 3900, 835, 9.0, USUAL),
    Gpu("H100-SXM", 81559, 3350, 989, 9.0, USUAL),
    Gpu("H200", 143771, 4800, 989, 9.0, USUAL),
    Gpu("B200", 183359, 8000, 2250, 10.0, USUAL),
)}
"""By name, the smallest first."""


def find_gpu(name: str) -> Gpu:
    """In any case. Raises NotFound with those that there are."""
    for known, gpu in GPUS.items():
        if known.lower() == name.lower():
            return gpu
    raise NotFound(f"There is no GPU {name!r} in the table.", hint=f"There are {', '.join(GPUS)}.", param="gpu")


def by_driver_name(name: str, total_bytes: int) -> Gpu | None:
    """The row of a device as its driver names it, such as "NVIDIA A100-SXM4-80GB": the one of nearest memory whose name it
    has."""
    plain = name.upper().replace(" ", "").replace("-", "").replace("NVIDIA", "").replace("GEFORCE", "").replace("TESLA", "")
    like = [gpu for gpu in GPUS.values() if plain.startswith(_first(gpu))]
    return min(like, key=lambda gpu: (-len(_first(gpu)), abs(gpu.mib * 2**20 - total_bytes)), default=None)


def _first(gpu: Gpu) -> str:
    return gpu.name.split("-")[0].upper()
