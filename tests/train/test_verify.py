"""A run succeeds after the proof only; one that fails it keeps what it made. And the same proof by hand, from a folder."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train.small import Recorder, make_folder
from tunesmith.errors import InvalidRequest
from tunesmith.models.artifact import read_adapter
from tunesmith.models.catalog import Base
from tunesmith.models.drift import read_drift
from tunesmith.runfolder import RunFolder
from tunesmith.train import sft
from tunesmith.train.proof import RECORD, ServedDiffers
from tunesmith.train.verify import Asked, measure_drift, prove_folder

RUN: dict[str, Any] = {"evaluation": {"verify": True}, "method": {"epochs": 1}}


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, dict[str, Any], Recorder]:
    folder, recorder = make_folder(tmp_path_factory.mktemp("run") / "run", **RUN), Recorder()
    result = sft.run(folder.recipe(), folder, recorder.tools())
    assert result is not None
    return folder, result, recorder


def test_a_run_says_how_far_what_is_served_is_from_what_was_trained(proven: tuple[RunFolder, dict[str, Any], Recorder]) -> None:
    folder, result, recorder = proven
    assert [event["phase"] for event in recorder.of("phase")][-2:] == ["saving", "verifying"]
    found = result["proof"]
    assert found["conversations"] == 4, "all that are held out"
    assert found["prompts"] == 4
    assert found["worst"] < 1e-4
    assert (folder.artifacts / "adapter" / RECORD).is_file()
    read_adapter(folder.artifacts / "adapter")


def test_a_template_that_was_changed_meanwhile_fails_the_run_and_leaves_the_adapter(small_base: Base, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(small_base.folder, base)
    folder, recorder = make_folder(tmp_path / "run", base=str(base), **RUN), Recorder()

    def emit(type: str, **fields: Any) -> None:
        recorder.emit(type, **fields)
        if fields.get("phase") == "verifying":
            template = (base / "chat_template.jinja").read_text()
            (base / "chat_template.jinja").write_text(template.replace("<|im_start|>assistant", "<|im_start|> assistant"))

    with pytest.raises(ServedDiffers, match="rendered otherwise when it is served") as caught:
        sft.run(folder.recipe(), folder, replace(recorder.tools(), emit=emit))
    assert caught.value.code == "served_differs"
    read_adapter(folder.artifacts / "adapter")


def test_by_hand_an_adapter_is_loaded_by_both_and_proven_on_made_conversations(
    proven: tuple[RunFolder, dict[str, Any], Recorder], tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(proven[0].artifacts / "adapter", adapter)
    held_out = proven[0].root / "validation.jsonl"
    found = prove_folder(Asked(adapter, None, held_out, count=3, threads=1, log=tmp_path / "log"))
    assert found["conversations"] == 3
    assert found["worst"] < 1e-4


def test_what_another_precision_changes_stands_in_the_adapters_record(
    proven: tuple[RunFolder, dict[str, Any], Recorder], tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(proven[0].artifacts / "adapter", adapter)
    assert read_drift(adapter) == {}
    found = measure_drift(Asked(adapter, None, count=11), "nf4")
    assert 0.001 < found.kl < 1 < found.tokens
    assert found.kl < found.kl_worst
    assert found.loss_there != found.loss
    assert read_drift(adapter) == {"nf4": found}
    read_adapter(adapter)
    with pytest.raises(InvalidRequest, match="nothing to compare"):
        measure_drift(Asked(adapter, None), "none")
