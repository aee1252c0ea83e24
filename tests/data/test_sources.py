"""A recipe may name its rows as LLaMA-Factory's and Axolotl's users do; what is not supported is refused by its name."""

import json
from pathlib import Path

import pytest
import yaml

from tunesmith.data.formats import read_rows
from tunesmith.data.sources import HubName, hub_name, located
from tunesmith.errors import InvalidData, InvalidRecipe, NotFound
from tunesmith.recipes.data import DataRecipe

SHARED = Path(__file__).parents[3] / "shared" / "data"
USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}


def never(name):
    raise AssertionError(f"asked a hub for {name}")


def found(name, **recipe):
    data = located(DataRecipe(train=str(name), **recipe), never)
    return data, read_rows(Path(data.train), data)


def asked_of(name, **recipe):
    """What a hub is asked for."""
    asked = []

    def bring(wanted):
        asked.append(wanted)
        raise NotFound("nothing", hint="")

    with pytest.raises(NotFound, match="nothing"):
        located(DataRecipe(train=str(name), **recipe), bring)
    return asked[0]


# -- dataset_info.json --------------------------------------------------------------------------------------------------

ALPACA = {"ask": "hi", "more": "", "reply": "yes"}
FACTORY = {
    "plain": ({"columns": {"prompt": "ask", "query": "more", "response": "reply"}}, ALPACA, "alpaca"),
    "default": ({}, {"instruction": "hi", "output": "yes"}, "alpaca"),
    "pair": ({"ranking": True, "columns": {"prompt": "ask", "chosen": "good", "rejected": "bad"}},
             {"ask": "hi", "good": "yes", "bad": "no"}, "preference"),
    "judged": ({"columns": {"prompt": "ask", "response": "reply", "kto_tag": "ok"}},
               {"ask": "hi", "reply": "yes", "ok": True}, "kto"),
    "talk": ({"formatting": "sharegpt", "columns": {"messages": "turns"},
              "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "client", "assistant_tag": "clerk"}},
             {"turns": [{"who": "client", "says": "hi"}, {"who": "clerk", "says": "yes"}]}, "sharegpt"),
    "openai": ({"formatting": "openai", "columns": {"messages": "messages"},
                "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}},
               {"messages": [USER, ANSWER]}, "sharegpt"),
    "pretraining": ({"columns": {"prompt": "page"}}, {"page": "once upon a time"}, "text"),
    "optional": ({"columns": {"prompt": "ask", "response": "reply", "system": "sys"}}, {"ask": "hi", "reply": "yes"}, "alpaca"),
}


@pytest.fixture
def factory(tmp_path) -> Path:
    """A data folder as LLaMA-Factory has it."""
    for name, (_, row, _) in FACTORY.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([row]))
    info = {name: {"file_name": f"{name}.json", **entry} for name, (entry, _, _) in FACTORY.items()}
    info |= {
        "far": {"hf_hub_url": "org/name", "subset": "en", "split": "test", "ms_hub_url": "x/y"},
        "script": {"script_url": "run.py"}, "seen": {"file_name": "x.json", "columns": {"images": "images"}},
        "elsewhere": {"ms_hub_url": "x/y"}, "odd": {"file_name": "x.json", "formatting": "chatml"},
        "tagged": {"file_name": "x.json", "tags": {"hat_tag": "x"}},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    return tmp_path


@pytest.mark.parametrize("name", FACTORY)
def test_a_name_of_dataset_info_is_read_as_its_entry_says(factory, name):
    data, read = found(factory / name)
    assert (data.train, read.problems) == (str(factory / f"{name}.json"), [])
    (row,) = read.rows
    assert row.kind == FACTORY[name][2]
    if name == "pretraining":
        assert row.text == "once upon a time"
    elif name == "pair":
        assert (row.messages, row.chosen[0]["content"], row.rejected[0]["content"]) == ([USER], "yes", "no")
    else:
        assert row.messages == [USER, ANSWER]
        assert row.label is (True if name == "judged" else None)


def test_what_a_recipe_says_wins_over_the_entry(factory):
    data, _ = found(factory / "plain", map={"system": "sys"}, bad_rows="skip")
    assert data.map == {"instruction": "ask", "input": "more", "output": "reply", "system": "sys"}
    assert data.bad_rows == "skip"
    (factory / "default.json").write_text('[{"text": "once"}]')
    assert found(factory / "default", format="text")[1].rows[0].text == "once"


def test_an_entry_of_a_hub_asks_for_its_split(factory):
    assert asked_of(factory / "far") == HubName("org/name", None, "en", "test")


@pytest.mark.parametrize(
    ("name", "said"),
    [("script", "field 'script_url'"), ("seen", "column 'images'"), ("elsewhere", "no file_name"), ("odd", "formatting 'chatml'"),
     ("tagged", "tag 'hat_tag'")],
)
def test_what_an_entry_asks_that_is_not_supported_is_refused_by_its_name(factory, name, said):
    with pytest.raises(InvalidData, match=f"The dataset {name} has .*{said}.* cannot be used here"):
        located(DataRecipe(train=str(factory / name)), never)


def test_a_folder_with_many_names_and_a_name_that_is_not_there_say_which_there_are(factory):
    with pytest.raises(InvalidData, match="several datasets.*/NAME: default, elsewhere"):
        located(DataRecipe(train=str(factory)), never)
    with pytest.raises(NotFound, match="no dataset 'nobody'.*There are: default"):
        located(DataRecipe(train=str(factory / "nobody")), never)


def test_a_folder_of_files_is_read_as_one(tmp_path):
    for number in (2, 1):
        (tmp_path / f"part-{number}.jsonl").write_text(f'{{"text": "page {number}"}}\n{{"text": ""}}\n')
    (tmp_path / "README.md").write_text("not rows")
    _, read = found(tmp_path)
    assert [row.text for row in read.rows] == ["page 1", "page 2"]
    assert [(problem.line, problem.unit) for problem in read.problems] == [(2, "row"), (4, "row")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidData, match="empty has no data files"):
        found(tmp_path / "empty")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(NotFound, match="There is no data file .*nothing.jsonl"):
        located(DataRecipe(train=str(tmp_path / "nothing.jsonl")), never)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data beside the checkout")
@pytest.mark.parametrize(
    ("name", "format", "rows"),
    [("identity", "alpaca", 91), ("alpaca_en_demo", "alpaca", 999), ("glaive_toolcall_en_demo", "sharegpt", 300),
     ("dpo_en_demo", "preference", 300), ("kto_en_demo", "kto", 300)],
)
def test_the_real_dataset_info_leads_to_the_real_files_row_by_row_as_without_it(name, format, rows):
    values = {"name": "Ada", "author": "Acme"} if name == "identity" else {}
    data, read = found(SHARED / name, values=values)
    assert (read.format, len(read.rows), read.problems) == (format, rows, [])
    plain = read_rows(SHARED / f"{name}.json", DataRecipe(train="x", values=values))
    assert [row.messages for row in plain.rows] == [row.messages for row in read.rows]
    assert [row.tools for row in plain.rows] == [row.tools for row in read.rows]


# -- Axolotl --------------------------------------------------------------------------------------------------------------

TALK = {"turns": [{"who": "client", "says": "hi"}, {"who": "clerk", "says": "yes"}]}
AXOLOTL = {
    "alpaca": ({"type": "alpaca"}, {"instruction": "hi", "output": "yes"}),
    "named": ({"type": {"field_instruction": "ask", "field_output": "reply"}}, {"ask": "hi", "reply": "yes"}),
    "sharegpt": ({"type": "sharegpt"}, {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]}),
    "chat_template": ({"type": "chat_template", "roles_to_train": ["assistant"], "train_on_eos": "turn"},
                      {"messages": [USER, ANSWER]}),
    "mapped": ({"type": "chat_template", "field_messages": "turns",
                "message_property_mappings": {"role": "who", "content": "says"},
                "roles": {"user": ["client"], "assistant": ["clerk"]}}, TALK),
    "older": ({"type": "chat_template", "field_messages": "turns", "message_field_role": "who", "message_field_content": "says",
               "roles": {"user": ["client"], "assistant": ["clerk"]}}, TALK),
}


def configuration(folder: Path, *entries: dict) -> Path:
    path = folder / "axolotl.yaml"
    path.write_text(yaml.safe_dump({"base_model": "org/base", "datasets": list(entries)}))
    return path


@pytest.mark.parametrize("name", AXOLOTL)
def test_a_dataset_of_axolotl_is_read_as_its_type_says(tmp_path, name):
    entry, row = AXOLOTL[name]
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    _, read = found(configuration(tmp_path, {"path": "rows.jsonl", "ds_type": "json", **entry}))
    assert read.problems == []
    assert read.rows[0].messages == [USER, ANSWER]


def test_axolotls_text_its_pieces_and_its_pairs_are_read(tmp_path):
    (tmp_path / "text.jsonl").write_text('{"page": "once"}\n')
    (tmp_path / "pieces.jsonl").write_text('{"segments": [{"label": false, "text": "Q: "}, {"label": true, "text": "A</s>"}]}\n')
    pair = {"messages": [USER], "good": ANSWER, "bad": ANSWER | {"content": "no"}}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    path = configuration(
        tmp_path, {"path": "text.jsonl", "type": "completion", "field": "page"}, {"path": "pieces.jsonl", "type": "input_output"},
        {"path": "pairs.jsonl", "type": "chat_template.default", "field_chosen": "good", "field_rejected": "bad"},
    )
    assert found(f"{path}#1")[1].rows[0].text == "once"
    assert found(f"{path}#2")[1].rows[0].segments == [("Q: ", False), ("A</s>", True)]
    (read,) = found(f"{path}#3")[1].rows
    assert (read.messages, read.chosen, read.rejected) == ([USER], [ANSWER], [ANSWER | {"content": "no"}])
    with pytest.raises(InvalidData, match="has 3 datasets.*axolotl.yaml#1"):
        found(path)
    with pytest.raises(NotFound, match="no dataset 4"):
        found(f"{path}#4")


def test_a_dataset_of_axolotl_that_is_no_file_here_is_asked_of_the_hub(tmp_path):
    path = configuration(tmp_path, {"path": "org/name", "type": "alpaca", "split": "test", "name": "en", "revision": "v1"})
    assert asked_of(path) == HubName("org/name", "v1", "en", "test")


@pytest.mark.parametrize(
    ("entry", "said"),
    [({"type": "pygmalion"}, "type 'pygmalion'"), ({"trust_remote_code": True}, "trust_remote_code: True"),
     ({"shards": 10}, "shards: 10"), ({"roles_to_train": ["user"]}, "roles_to_train"), ({"train_on_eos": "last"}, "train_on_eos"),
     ({"message_property_mappings": {"weight": "train"}}, "another name for a turn's weight"),
     ({"data_files": ["a.json", "b.json"]}, "several data_files")],
)
def test_what_axolotl_is_asked_that_is_not_supported_is_refused_by_its_name(tmp_path, entry, said):
    with pytest.raises(InvalidData, match=said):
        located(DataRecipe(train=str(configuration(tmp_path, {"path": "rows.jsonl", **entry}))), never)


def test_a_yaml_that_is_no_configuration_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("datasets: 7")
    with pytest.raises(InvalidData, match="no `datasets` with a path each"):
        found(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(InvalidData, match="cannot be read as YAML"):
        found(tmp_path / "a.yaml")


# -- hub names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hub:org/name", HubName("org/name", None, None, "train")),
        ("hub:squad", HubName("squad", None, None, "train")),
        ("hub:org/na.me-2:test", HubName("org/na.me-2", None, None, "test")),
        ("hub:openai/gsm8k:main/test", HubName("openai/gsm8k", None, "main", "test")),
        ("hub:org/name@v1.0:train", HubName("org/name", "v1.0", None, "train")),
        ("hub:org/name@refs/pr/1", HubName("org/name", "refs/pr/1", None, "train")),
    ],
)
def test_a_hub_name_has_a_revision_a_configuration_and_a_split(text, parts):
    assert hub_name(text) == parts
    assert asked_of(text) == parts


@pytest.mark.parametrize(
    "text", ["hub:", "hub:org/", "hub:a/b/c", "hub:../x", "hub:org/name:", "hub:org/name:a/b/c", "hub:org name"]
)
def test_what_is_no_hub_name_is_refused(text):
    with pytest.raises(InvalidRecipe, match="is no dataset on a hub"):
        located(DataRecipe(train=text), never)
