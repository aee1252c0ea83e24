"""The run folder says of what kind its job is; a folder of the first days, which said nothing, is fine-tuning's."""

import json

import pytest

from tunesmith.errors import InvalidRecipe
from tunesmith.recipes.batch import BatchRecipe
from tunesmith.recipes.run import parse
from tunesmith.runfolder import RunFolder


def test_a_folder_keeps_the_recipe_of_any_kind_of_job(tmp_path):
    tuning, batch = parse({"data": {"train": "rows.jsonl"}}), BatchRecipe(endpoint="/v1/embeddings", expires=1)
    assert (RunFolder(tmp_path / "t").create(tuning).kind(), RunFolder(tmp_path / "t").recipe()) == ("fine_tuning", tuning)
    folder = RunFolder(tmp_path / "b").create(batch)
    assert (folder.kind(), folder.recipe_as(BatchRecipe)) == ("batch", batch)


def test_a_recipe_read_as_another_kind_is_refused(tmp_path):
    folder = RunFolder(tmp_path).create(BatchRecipe(endpoint="/v1/embeddings", expires=1))
    with pytest.raises(InvalidRecipe):
        folder.recipe()
    (tmp_path / "recipe.json").write_text(json.dumps({"kind": "batch", "endpoint": "/v1/embeddings", "expires": "soon"}))
    with pytest.raises(InvalidRecipe, match="expires"):
        folder.recipe_as(BatchRecipe)
