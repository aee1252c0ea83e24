"""`tunesmith doctor` says what is there and what follows, and fails only when something needed is broken."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tunesmith.cli import doctor

NAMES = ["Python", "CPU", "Memory", "Disk", "GPU", "Quantization", "Sandbox", "Node", "Libraries", "Built-in base"]


class Report(NamedTuple):
    findings: dict[str, dict[str, Any]]
    exit_status: int
    left_behind: list[Path]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The command, run once as a user runs it, for a data directory that does not exist yet."""
    folder = tmp_path_factory.mktemp("doctor")
    command = [sys.executable, "-m", "tunesmith", "doctor", "--data-dir", str(folder / "not" / "there"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    return Report({finding["name"]: finding for finding in json.loads(done.stdout)}, done.returncode, list(folder.iterdir()))


def test_every_finding_says_what_follows(report: Report) -> None:
    assert list(report.findings) == NAMES
    assert all(finding["found"] and finding["follows"] for finding in report.findings.values())


def test_it_fails_only_when_something_needed_is_broken(report: Report) -> None:
    broken = [name for name, finding in report.findings.items() if finding["broken"]]
    assert report.exit_status == int(bool(broken))
    assert set(broken) <= {"Built-in base"}, "a checkout may lack the weights for a while, nothing else"


def test_it_looks_and_changes_nothing(report: Report) -> None:
    assert report.left_behind == []


def test_nf4_is_tried_and_not_assumed(report: Report) -> None:
    assert report.findings["Quantization"]["found"] == "NF4 with double quantization works"


def test_a_torch_that_does_not_start_is_a_line_and_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TORCH_PROBE", "raise SystemExit('broken')")
    assert doctor.gpu().broken
    monkeypatch.setattr(doctor, "NF4_PROBE", "print('no JSON')")
    assert "quantization" in doctor.quantization().follows


def test_a_folder_that_cannot_be_written_is_broken_with_a_next_step(tmp_path: Path) -> None:
    # /proc refuses even root
    finding = doctor.disk(Path("/proc/tunesmith"))
    assert finding.broken
    assert "--data-dir" in finding.follows


def test_a_missing_library_is_broken_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", ("torch", "no-such-library"))
    finding = doctor.libraries()
    assert finding.broken
    assert "no-such-library missing" in finding.found
    assert "constraints.txt" in finding.follows


def test_missing_weights_of_the_built_in_base_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TINY", tmp_path)
    assert doctor.built_in_base().broken
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert not doctor.built_in_base().broken


def test_a_machine_without_node_can_do_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert shutil.which("node") is None
    finding = doctor.node()
    assert finding.found == "none"
    assert not finding.broken
