"""What stands on the shelf of bases: pointers and copies, checked before they get there."""

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.models.catalog import find_base, list_bases
from tunesmith.models.shelf import add, read_source, remove
from tunesmith.paths import TINY


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with all files of a base, the weights of which are too few to compute with."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    config = {"model_type": "llama", "hidden_size": 8, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes((TINY / "tokenizer.json").read_bytes())
    save_file({"model.embed_tokens.weight": numpy.zeros((4, 8), dtype=numpy.float32)}, folder / "model.safetensors")
    (folder / "optimizer.pt").write_bytes(b"pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    return folder


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "models"


def ids(shelf: Path) -> set[str]:
    return {base.id for base in list_bases(shelf)} - {"tunesmith/tiny"}


def test_an_added_base_is_found_by_its_name_where_its_files_lie(model: Path, shelf: Path) -> None:
    add(model, shelf, name="mine/one")
    base = find_base("mine/one", shelf)
    assert base.folder == model
    assert (base.hidden_size, base.num_parameters) == (8, 32)
    assert ids(shelf) == {"mine/one"}


def test_a_copy_stands_when_the_original_is_gone_and_holds_nothing_that_runs(model: Path, shelf: Path) -> None:
    add(model, shelf, copy=True)
    revision = find_base("my-model", shelf).revision
    assert revision == find_base(str(model)).revision
    for path in model.iterdir():
        path.unlink()
    base = find_base("my-model", shelf)
    assert base.revision == revision
    assert {path.name for path in base.folder.iterdir()} == {"config.json", "tokenizer.json", "model.safetensors", "source.json"}


def test_removing_a_link_leaves_the_users_own_files(model: Path, shelf: Path) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    add(model, shelf)
    remove("my-model", shelf)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert list(shelf.iterdir()) == []
    with pytest.raises(NotFound):
        find_base("my-model", shelf)


def test_removing_a_copy_deletes_it(model: Path, shelf: Path) -> None:
    add(model, shelf, copy=True)
    assert remove("my-model", shelf).kind == "copy"
    assert list(shelf.iterdir()) == []
    assert model.is_dir()


@pytest.mark.parametrize("name", ["../outside", "..", "a\\b", ""])
def test_a_name_never_leads_out_of_the_shelf(model: Path, shelf: Path, name: str) -> None:
    if name:
        add(model, shelf, name="other")
    with pytest.raises((InvalidRequest, NotFound)):
        remove(name, shelf)
    assert model.is_dir()


@pytest.mark.parametrize("name", ["other", "tunesmith/tiny"])
def test_a_name_that_is_taken_is_refused(model: Path, shelf: Path, name: str) -> None:
    add(model, shelf, name="other")
    with pytest.raises(InvalidRequest, match="already a base"):
        add(model, shelf, name=name)


def test_the_built_in_base_stays(shelf: Path) -> None:
    with pytest.raises(InvalidRequest, match="comes with Tunesmith"):
        remove("tunesmith/tiny", shelf)


BROKEN = {
    "pickle_only": ("model.safetensors", "only pickle weights"),
    "no_config": ("config.json", "no config.json"),
    "no_tokenizer": ("tokenizer.json", "no tokenizer"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_folder_that_is_no_base_is_refused_and_nothing_is_left(model: Path, shelf: Path, case: str) -> None:
    missing, sentence = BROKEN[case]
    (model / missing).unlink()
    with pytest.raises(InvalidRequest, match=sentence):
        add(model, shelf)
    assert not shelf.exists()


def test_a_folder_that_is_not_there_and_a_damaged_one_are_refused(model: Path, shelf: Path) -> None:
    with pytest.raises(NotFound, match="no folder"):
        add(model / "nothing", shelf)
    (model / "config.json").write_text("{")
    with pytest.raises(InvalidRequest, match="not JSON"):
        add(model, shelf)


def test_code_of_the_models_own_is_refused(model: Path, shelf: Path) -> None:
    (model / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling.Model"}}))
    with pytest.raises(InvalidRequest, match="auto_map"):
        add(model, shelf)


def test_a_missing_shard_is_named(model: Path, shelf: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidRequest, match="lacks model-00001-of-00001.safetensors"):
        add(model, shelf)


def test_a_pull_that_is_not_finished_is_no_base(model: Path, shelf: Path) -> None:
    add(model, shelf, copy=True)
    (shelf / "my-model").rename(shelf / ".my-model.aaaa.part")
    assert ids(shelf) == set()
    assert read_source(shelf / "my-model") is None


def test_shelf_and_hub_import_no_torch() -> None:
    code = "import sys, tunesmith.models.hub, tunesmith.models.shelf; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
