"""A run's folder holds its rows, wherever a recipe says that they come from."""

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import HubServer, Repo
from typer.testing import CliRunner

from tunesmith.cli.data import app
from tunesmith.cli.local_run import lay_out
from tunesmith.cli.train import changed
from tunesmith.data.dataset import build
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.errors import NotFound
from tunesmith.paths import TINY
from tunesmith.recipes.run import load


def jsonl(*answers: str) -> bytes:
    return "".join(json.dumps({"question": f"ask {answer}", "answer": answer}) + "\n" for answer in answers).encode()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("TUNESMITH_DATA_DIR", str(tmp_path / "kept"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    files = {"data/train-0.jsonl": jsonl("one", "two"), "data/train-1.jsonl": jsonl("three"), "data/test.jsonl": jsonl("four")}
    with HubServer({"org/rows": Repo(files)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
        huggingface_hub.close_session()


def recipe_in(folder: Path, **data: object) -> Path:
    path = folder / "recipe.json"
    path.write_text(json.dumps({"data": data}))
    return path


def answers(folder: Path, recipe) -> tuple[list[str], int]:
    tokenizer = load_tokenizer(TINY)
    found = build(recipe.data, folder, tokenizer, max_length=4096, seed=1, cache=folder / "tokens")
    texts = [tokenizer.decode(row.ids).split("assistant\n")[1].removesuffix("<|im_end|>\n") for row in found.train]
    return texts, len(found.held_out)


def test_a_run_takes_a_hubs_split_of_several_files_and_says_at_which_commit(hub: HubServer, tmp_path: Path) -> None:
    recipe = load(recipe_in(tmp_path, train="hub:org/rows", validation="hub:org/rows:test"))
    laid_out = lay_out(recipe, tmp_path / "run").recipe()
    assert (laid_out.data.train, laid_out.data.validation) == ("train", "validation.jsonl")
    assert laid_out.data.source == f"hub:org/rows@{'a' * 40}:train, hub:org/rows@{'a' * 40}:test"
    assert answers(tmp_path / "run", laid_out) == (["one", "two", "three"], 1)
    (tmp_path / "run" / "train" / "data" / "train-1.jsonl").write_bytes(jsonl("changed"))
    assert answers(tmp_path / "run", laid_out) == (["one", "two", "changed"], 1)


def test_the_flag_data_takes_the_place_of_the_recipes_own(hub: HubServer, tmp_path: Path) -> None:
    recipe = changed(load(recipe_in(tmp_path, train="nothing.jsonl")), ['data.train="hub:org/rows:test"'])
    laid_out = lay_out(recipe, tmp_path / "run").recipe()
    assert answers(tmp_path / "run", laid_out) == (["four"], 0)


def test_a_run_of_dataset_info_reads_as_its_entry_says(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"ask": "hi", "reply": "I am {{name}}"}]))
    entry = {"file_name": "rows.json", "columns": {"prompt": "ask", "response": "reply"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    laid_out = lay_out(load(recipe_in(tmp_path, train="mine", values={"name": "Ada"})), tmp_path / "run").recipe()
    assert (laid_out.data.train, laid_out.data.format, laid_out.data.source) == ("train.json", "alpaca", "")
    assert answers(tmp_path / "run", laid_out) == (["I am Ada"], 0)


def test_rows_that_are_not_there_lay_out_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no data file"):
        lay_out(load(recipe_in(tmp_path, train="nothing.jsonl")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_check_asks_a_hub_too_and_counts_what_both_files_ask(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_bytes(jsonl("two", "five"))
    (tmp_path / "more.jsonl").write_bytes(jsonl("one", "one"))
    done = CliRunner().invoke(app, ["check", "hub:org/rows", "--validation", str(tmp_path / "held.jsonl"), "--json"])
    report = json.loads(done.stdout)
    assert (done.exit_code, report["rows"], report["usable"]) == (0, 3, 3)
    assert report["file"] == f"hub:org/rows@{'a' * 40}:train"
    assert (report["validation"]["usable"], report["validation"]["leaked"]) == (2, 1)
    aside = json.loads(CliRunner().invoke(app, ["check", str(tmp_path / "more.jsonl"), "--skip-duplicates", "--json"]).stdout)
    assert (aside["usable"], aside["set_aside"], aside["problems"]) == (1, {"It repeats line N.": 1}, [])
