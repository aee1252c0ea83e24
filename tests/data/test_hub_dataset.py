"""A dataset is brought through huggingface_hub from a real HTTP server on loopback, and read by the same loader as a file."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest
from hub_server import HubServer, Repo

from tunesmith.data.formats import read_rows
from tunesmith.data.hub_dataset import bring
from tunesmith.data.sources import hub_name, located
from tunesmith.errors import InvalidData, NotFound, TunesmithError, Unauthorized
from tunesmith.recipes.data import DataRecipe

NAME = "org/rows"
CALLS = [
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": name, "arguments": arguments}}]}]}
    for name, arguments in (("find", {"city": "Paris"}), ("play", {"sound": "a cat", "loud": True}))
]


def jsonl(*answers: str) -> bytes:
    return "".join(json.dumps({"question": f"ask {answer}", "answer": answer}) + "\n" for answer in answers).encode()


def parquet(rows: list[dict]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


@pytest.fixture
def repo() -> Repo:
    return Repo({"train.jsonl": jsonl("one", "two"), "test.jsonl": jsonl("three"), ".gitattributes": b"x"})


@pytest.fixture
def hub(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer({NAME: repo}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
        huggingface_hub.close_session()


def answers(folder: Path, name: str) -> list[str]:
    data = located(DataRecipe(train=name), lambda wanted: bring(wanted, folder))
    return [row.messages[-1]["content"] for row in read_rows(Path(data.train), data).rows]


def test_a_split_is_brought_by_its_name_pinned_and_only_once(hub: HubServer, tmp_path: Path) -> None:
    data = located(DataRecipe(train=f"hub:{NAME}", validation=f"hub:{NAME}:test"), lambda wanted: bring(wanted, tmp_path))
    assert data.source == f"hub:{NAME}@{'a' * 40}:train, hub:{NAME}@{'a' * 40}:test"
    assert [len(read_rows(Path(path)).rows) for path in (data.train, data.validation)] == [2, 1]
    num_gets = len(hub.asked_for("/resolve/"))
    assert answers(tmp_path, f"hub:{NAME}") == ["one", "two"]
    assert len(hub.asked_for("/resolve/")) == num_gets
    assert all("authorization" not in request.headers for request in hub.requests)


def test_the_readme_says_which_files_a_configuration_has(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    repo.files = {
        "README.md": (
            b"---\nconfigs:\n- config_name: main\n  default: true\n  data_files:\n  - split: train\n    path: main/t-*\n"
            b"- config_name: other\n  data_files: odd.jsonl\n- config_name: third\n  data_dir: third\n---\n# Rows\n"
        ),
        "main/t-2.jsonl": jsonl("b"), "main/t-1.jsonl": jsonl("a"), "odd.jsonl": jsonl("odd"), "train.jsonl": jsonl("not this"),
        "third/x-train.jsonl": jsonl("third"), "third/x-test.jsonl": jsonl("no"),
    }
    assert answers(tmp_path, f"hub:{NAME}") == ["a", "b"]
    assert answers(tmp_path, f"hub:{NAME}:other/train") == ["odd"]
    assert answers(tmp_path, f"hub:{NAME}:third/train") == ["third"]
    with pytest.raises(InvalidData, match="several configurations.*CONFIG/train: main, other, third"):
        answers(tmp_path, f"hub:{NAME}:fourth/train")
    repo.files["README.md"] = repo.files["README.md"].replace(b"  default: true\n", b"")
    repo.commit = "b" * 40
    with pytest.raises(InvalidData, match="several configurations"):
        answers(tmp_path, f"hub:{NAME}")


@pytest.mark.parametrize(
    ("files", "name", "expected"),
    [
        (["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/validation.jsonl"], "", 2),
        (["data/train-00000-of-00002.jsonl", "data/dev.jsonl", "trainer.jsonl"], ":validation", 1),
        (["rows.jsonl", "more.jsonl"], "", 2),
        (["en/train.jsonl", "de/train.jsonl", "en/test.jsonl"], ":en/train", 1),
        (["train.jsonl", "train.csv", "train.parquet.md", "dataset_infos.json"], "", 1),
    ],
)
def test_without_a_readme_the_names_of_files_say_the_split(
    hub: HubServer, repo: Repo, tmp_path: Path, files: list[str], name: str, expected: int
) -> None:
    repo.files = {file: jsonl(str(number)) for number, file in enumerate(files)}
    assert len(answers(tmp_path, f"hub:{NAME}{name}")) == expected


def test_tool_calls_in_parquet_come_back_without_the_nulls_of_arrow(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    repo.files = {"data/train-00000-of-00001.parquet": parquet(CALLS)}
    data = located(DataRecipe(train=f"hub:{NAME}"), lambda wanted: bring(wanted, tmp_path))
    read = read_rows(Path(data.train))
    assert [row.messages[1]["tool_calls"][0]["function"] for row in read.rows] == [
        row["messages"][1]["tool_calls"][0]["function"] for row in CALLS
    ]


def test_a_dataset_that_is_a_script_is_taken_as_the_parquet_that_the_hub_made(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    repo.files = {"rows.py": b"raise SystemExit('never run')", "README.md": b"# no head"}
    with pytest.raises(NotFound, match="no revision 'refs/convert/parquet'"):
        answers(tmp_path, f"hub:{NAME}")
    rows = [{"question": "ask", "answer": "converted"}]
    repo.branches["refs/convert/parquet"] = Repo({"default/train/0000.parquet": parquet(rows)}, commit="c" * 40)
    assert answers(tmp_path, f"hub:{NAME}") == ["converted"]
    assert not hub.asked_for("rows.py")


def test_what_is_not_there_is_told_with_what_is(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no files for the split 'dev'.*test.jsonl, train.jsonl; name a split as hub:org/rows:"):
        answers(tmp_path, f"hub:{NAME}:dev")
    with pytest.raises(NotFound, match="has no dataset org/nobody that you may see"):
        answers(tmp_path, "hub:org/nobody")
    with pytest.raises(NotFound, match="no revision 'v9'"):
        answers(tmp_path, f"hub:{NAME}@v9")
    repo.token = "hf_secret"
    with pytest.raises(Unauthorized, match="gated"):
        answers(tmp_path, f"hub:{NAME}")


def test_wrong_bytes_and_names_that_lead_outside_are_refused(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    repo.corrupt = {"train.jsonl"}
    with pytest.raises(TunesmithError, match="another content"):
        answers(tmp_path, f"hub:{NAME}")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    repo.corrupt, repo.files = set(), {"../../train.jsonl": jsonl("out")}
    with pytest.raises(TunesmithError, match="which is no file's name"):
        answers(tmp_path, f"hub:{NAME}")


def test_progress_is_told(hub: HubServer, tmp_path: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}
    bring(hub_name(f"hub:{NAME}"), tmp_path, lambda name, done, total: seen.update({name: (done, total)}))
    assert seen == {"train.jsonl": (len(jsonl("one", "two")),) * 2}
