"""`tunesmith doctor`: what this machine can do, and what follows. Looks only; changes nothing and reaches no network.

A probe is a function that returns one `Finding`. Those that need torch run in a child process, so that a broken torch is a line
of the report and not the end of it.
"""

import ctypes
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from tunesmith.errors import TunesmithError
from tunesmith.paths import TINY, DataDir

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and what follows from it."""

    name: str
    found: str
    follows: str
    broken: bool = False
    """Something that Tunesmith needs is missing; `follows` is then the next step."""


LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "peft", "trl", "bitsandbytes", "datasets",
             "fastapi", "SQLAlchemy", "openai")
OPTIONAL = {"bitsandbytes"}
INSTALL = "run `pip install --constraint constraints.txt --editable .` in the checkout, or `make setup`"
WIDTHS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "bf16 products", "amx_bf16": "AMX bf16"}
"""Flags of /proc/cpuinfo that decide the speed of a matrix product."""

TORCH_PROBE = """
import json, torch
gpus = [{"name": torch.cuda.get_device_name(i), "gib": torch.cuda.get_device_properties(i).total_memory / 2**30}
        for i in range(torch.cuda.device_count())]
print(json.dumps({"gpus": gpus, "bf16": bool(gpus) and torch.cuda.is_bf16_supported(), "threads": torch.get_num_threads()}))
"""
NF4_PROBE = """
import json, torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
weights = torch.linspace(-1, 1, 4096).reshape(64, 64)
packed, state = quantize_4bit(weights, quant_type="nf4", compress_statistics=True)
back = dequantize_4bit(packed, state)
print(json.dumps({"mean_error": (back - weights).abs().mean().item()}))
"""
USER_NAMESPACE_PROBE = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
print(json.dumps({"errno": 0 if libc.unshare(0x10000000) == 0 else ctypes.get_errno()}))
"""


@app.command()
def doctor(
    data_dir: Path = typer.Option(None, help="Folder that a server here would use [default: .tunesmith]."),
    as_json: bool = typer.Option(False, "--json", help="Print a JSON array of findings."),
) -> None:
    """What this machine can do, each with what follows. Exits with 1 if something needed is broken."""
    folder = DataDir(data_dir.absolute()) if data_dir else DataDir.default()
    probes: tuple[Callable[[], Finding], ...] = (
        python, cpu, memory, lambda: disk(folder.root), gpu, quantization, sandbox, node, libraries, built_in_base,
    )
    with Console(stderr=True).status("Looking at this machine ...") as status:
        findings = []
        for probe in probes:
            findings.append(probe())
            status.update(f"Looking at this machine ... {findings[-1].name} seen")
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        show(findings)
    broken = [finding for finding in findings if finding.broken]
    if broken:
        names = ", ".join(finding.name for finding in broken)
        raise TunesmithError(f"Broken here: {names}.", hint=f"First step: {broken[0].follows}.")


def show(findings: list[Finding]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("", "Found", "What follows"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        style = "bold red" if finding.broken else "bold"
        table.add_row(f"[{style}]{finding.name}[/]", finding.found, finding.follows)
    Console().print(table)


def python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("Python", found, "new enough (3.11 is needed)")


def cpu() -> Finding:
    """Cores that this process may use, and the instruction sets that matter."""
    cores = len(os.sched_getaffinity(0))
    flags = set(_after(Path("/proc/cpuinfo"), "flags").split())
    has = [name for flag, name in WIDTHS.items() if flag in flags]
    found = f"{cores} core{'s' if cores > 1 else ''}, {', '.join(has) or 'no wide instructions known'}"
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        return Finding("CPU", found, "training in bf16 is possible; NF4 computes in bf16")
    return Finding("CPU", found, "training and NF4 compute in fp32; bf16 would be slower here")


def memory() -> Finding:
    """GiB of the machine, or of the control group where that is less."""
    total = _number(_after(Path("/proc/meminfo"), "MemTotal")) / 2**20
    free = _number(_after(Path("/proc/meminfo"), "MemAvailable")) / 2**20
    limit = _read(Path("/sys/fs/cgroup/memory.max")).strip()
    if limit.isdigit():
        total = min(total, int(limit) / 2**30)
        free = min(free, total)
    follows = f"a base of up to {free / 8:.1f} B parameters and its adapter fit in fp32 (8 bytes a parameter)"
    return Finding("Memory", f"{total:.1f} GiB, {free:.1f} GiB available", follows)


def disk(folder: Path) -> Finding:
    """GiB free where the data directory lies or would lie, and whether we may write there."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        follows = f"make {existing} writable, or name another --data-dir"
        return Finding("Disk", f"{existing}: {error.strerror}", follows, broken=True)
    free = shutil.disk_usage(existing).free / 2**30
    if free < 1:
        return Finding("Disk", f"{free:.2f} GiB free at {existing}", "free some space: runs keep checkpoints", broken=free < 0.1)
    return Finding("Disk", f"{free:.1f} GiB free at {existing}", f"holds about {free / 2:.0f} B parameters of bases in bf16")


def gpu() -> Finding:
    """GPUs that torch can use; nvidia-smi is asked only to tell a missing driver from a CPU build of torch."""
    seen = _child(TORCH_PROBE)
    if seen is None:
        return Finding("GPU", "torch does not start", INSTALL, broken=True)
    if seen["gpus"]:
        found = ", ".join(f"{gpu['name']} ({gpu['gib']:.0f} GiB)" for gpu in seen["gpus"])
        # QLoRA's paper: 33 B on 24 GB, 65 B on 48 GB
        largest = max(1, int((max(gpu["gib"] for gpu in seen["gpus"]) - 3) * 1.4))
        bf16 = "bf16" if seen["bf16"] else "fp16 only, no bf16"
        return Finding("GPU", found, f"QLoRA trains models of up to about {largest} B parameters here; {bf16}")
    drivers = _run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    if drivers:
        return Finding("GPU", f"{drivers.splitlines()[0]}, which torch cannot use", "install the CUDA build of torch")
    return Finding("GPU", "none", "the CPU trains models of up to about 0.5 B parameters; larger ones need a GPU to end in time")


def quantization() -> Finding:
    """Whether bitsandbytes packs and unpacks NF4 with double quantization here."""
    seen = _child(NF4_PROBE)
    if seen is None or seen["mean_error"] > 0.1:
        return Finding("Quantization", "NF4 does not work", 'train with `quantization = "none"`; QLoRA needs bitsandbytes')
    return Finding("Quantization", "NF4 with double quantization works", "QLoRA trains and serves on this machine")


def sandbox() -> Finding:
    """What could jail foreign code: Landlock, seccomp, user namespaces, bubblewrap."""
    landlock = _landlock_abi()
    seccomp = Path("/proc/sys/kernel/seccomp/actions_avail").exists()
    namespaces = _child(USER_NAMESPACE_PROBE) == {"errno": 0}
    bubblewrap = _run(["bwrap", "--ro-bind", "/", "/", "true"]) is not None
    has = {f"Landlock ABI {landlock}": landlock > 0, "seccomp": seccomp, "user namespaces": namespaces, "bubblewrap": bubblewrap}
    found = ", ".join(name for name, works in has.items() if works) or "nothing"
    missing = [name for name, works in has.items() if not works and "Landlock" not in name]
    found += f"; no {', no '.join(missing)}" if missing else ""
    if landlock > 0 and seccomp:
        return Finding("Sandbox", found, "foreign code, such as a grader's, can be jailed")
    return Finding("Sandbox", found, "no foreign code will run: its jail needs Landlock (Linux 5.13) and seccomp")


def node() -> Finding:
    version = (_run(["node", "--version"]) or "none").strip()
    major = version.removeprefix("v").split(".")[0]
    if major.isdigit() and int(major) >= 20:
        return Finding("Node", version, "can build a browser UI; nothing else needs it")
    return Finding("Node", version, "only a browser UI needs it, of version 20 or newer; all else works")


def libraries() -> Finding:
    """Versions of what we stand on; without bitsandbytes all but QLoRA works."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    found = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    missing = [name for name, version in versions.items() if version is None and name not in OPTIONAL]
    return Finding("Libraries", found, INSTALL if missing else "all that is needed is installed", broken=bool(missing))


def built_in_base() -> Finding:
    weights = TINY / "model.safetensors"
    if not weights.is_file():
        return Finding("Built-in base", "no weights", f"install Tunesmith again, or check out {weights.name}", broken=True)
    return Finding("Built-in base", f"{weights.stat().st_size / 1e6:.1f} MB", "`tunesmith demo` works without a model hub")


def _landlock_abi() -> int:
    """The kernel's Landlock ABI by landlock_create_ruleset(NULL, 0, VERSION), which makes nothing; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(ctypes.CDLL(None).syscall(444, None, 0, 1)))


def _child(code: str) -> dict[str, Any] | None:
    """The JSON that a child process prints last; None if it fails."""
    printed = _run([sys.executable, "-c", code])
    try:
        return json.loads(printed.splitlines()[-1]) if printed else None  # type: ignore[no-any-return]
    except json.JSONDecodeError:
        return None


def _run(command: list[str]) -> str | None:
    """What a program prints; None if it is missing, fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _after(path: Path, key: str) -> str:
    """What follows `key:` in the first such line of a file of /proc."""
    return next((line.partition(":")[2] for line in _read(path).splitlines() if line.split(":")[0].strip() == key), "")


def _number(text: str) -> int:
    """The number of `  16384 kB`; 0 if there is none."""
    return int(text.split()[0]) if text.split() else 0
