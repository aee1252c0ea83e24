"""Bases are found by id, shelf name or folder, and described from their files alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.models.catalog import Base, find_base, list_bases
from tunesmith.models.shelf import add


def test_the_built_in_base_is_there_without_a_shelf() -> None:
    base = find_base("tunesmith/tiny")
    assert (base.id, base.hidden_size, base.max_positions) == ("tunesmith/tiny", 256, 4096)
    assert base.num_parameters is not None
    assert base.num_parameters <= 4_000_000
    assert base in list_bases()


def test_a_folder_is_a_base_by_its_path(small_base: Base) -> None:
    assert find_base(str(small_base.folder)) == small_base
    assert small_base.num_parameters == 4096 * 64 + 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 128 + 128) + 64


def test_a_base_on_the_shelf_is_found_and_listed_by_its_name(small_base: Base, tmp_path: Path) -> None:
    add(small_base.folder, tmp_path, name="my/small")
    found = find_base("my/small", tmp_path)
    assert (found.id, found.folder) == ("my/small", small_base.folder)
    assert [base.id for base in list_bases(tmp_path)] == ["tunesmith/tiny", "my/small"]
    assert found.revision == small_base.revision


@pytest.mark.parametrize("name", ["nobody/nothing", "", "..", "/nowhere/at/all", "a\0b"])
def test_an_unknown_base_is_not_found_and_the_error_lists_those_that_are(name: str, tmp_path: Path) -> None:
    with pytest.raises((NotFound, InvalidRequest), match=r"tunesmith/tiny|not a valid name"):
        find_base(name, tmp_path)


def test_a_folder_with_only_pickle_is_refused(small_base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(small_base.folder, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InvalidRequest, match="pickle"):
        find_base(str(folder))


def test_the_revision_changes_with_a_byte_of_weights_tokenizer_or_config_and_with_nothing_else(
    small_base: Base, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small_base.folder, folder)
    seen = {find_base(str(folder)).revision}
    assert seen == {small_base.revision}
    (folder / "README.md").write_text("new")
    assert find_base(str(folder)).revision in seen
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] + b" " + content[-1:])
        seen.add(find_base(str(folder)).revision)
    assert len(seen) == 4


def test_a_torn_weight_file_is_described_without_its_size(small_base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    shutil.copytree(small_base.folder, folder)
    (folder / "model.safetensors").write_bytes(b"\xff" * 20)
    assert find_base(str(folder)).num_parameters is None


def test_other_families_names_for_width_and_positions_are_understood(small_base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "gpt2"
    shutil.copytree(small_base.folder, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 48, "n_positions": 99}))
    base = find_base(str(folder))
    assert (base.hidden_size, base.max_positions) == (48, 99)


def test_nothing_of_it_imports_torch() -> None:
    program = "import sys, tunesmith.models.catalog, tunesmith.models.artifact; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
