"""Pulling a base through huggingface_hub from a real HTTP server on loopback."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import HubServer, Repo
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith.errors import InvalidRequest, NotFound, StorageFull, TunesmithError, Unauthorized
from tunesmith.models.catalog import find_base
from tunesmith.models.hub import pull
from tunesmith.models.loader import load_base
from tunesmith.models.shelf import read_source
from tunesmith.paths import TINY

NAME = "some-org/small.llama"
SHAPE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
         "head_dim": 32, "vocab_size": 4096, "max_position_embeddings": 4096, "tie_word_embeddings": True}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A whole model repository with random weights (13.8 MB) and things that nobody needs."""
    folder = tmp_path_factory.mktemp("repository")
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((TINY / name).read_bytes())
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**found, "README.md": b"# Model", "pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx", "modeling.py": b"pass"}


@pytest.fixture
def repo(files: dict[str, bytes]) -> Repo:
    return Repo(dict(files))


@pytest.fixture
def hub(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # for child processes
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer({NAME: repo}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
        huggingface_hub.close_session()


def test_a_pulled_base_is_found_by_its_name_and_loads(hub: HubServer, tmp_path: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}
    pull(NAME, tmp_path, report=lambda name, done, total: seen.update({name: (done, total)}))
    base = find_base(NAME, tmp_path)
    assert base.hidden_size == 256
    model = load_base(base, "none")
    assert sum(p.numel() for p in model.parameters()) == base.num_parameters
    assert all(done == total for done, total in seen.values())


def test_the_revision_is_pinned_to_a_commit(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    source = pull(NAME, tmp_path, revision="main")
    assert source.revision == repo.commit
    assert read_source(tmp_path / "some-org--small.llama") == source
    assert all(repo.commit in request.path for request in hub.asked_for("/resolve/"))


def test_only_what_a_base_needs_is_brought(hub: HubServer, tmp_path: Path) -> None:
    source = pull(NAME, tmp_path)
    folder = tmp_path / "some-org--small.llama"
    assert {path.name for path in folder.iterdir()} == {*source.files, "source.json"}
    assert {Path(name).suffix for name in source.files} == {".safetensors", ".json", ".jinja"}
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_second_pull_brings_nothing_and_another_commit_is_refused(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    first = pull(NAME, tmp_path)
    before = len(hub.asked_for("/resolve/"))
    assert pull(NAME, tmp_path) == first
    assert len(hub.asked_for("/resolve/")) == before
    repo.commit = "b" * 40
    with pytest.raises(InvalidRequest, match="already here, at aaaa"):
        pull(NAME, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["some-org--small.llama"]


CHILD = "import sys; from pathlib import Path; from tunesmith.models.hub import pull; pull(sys.argv[1], Path(sys.argv[2]))"


def test_a_killed_pull_goes_on_where_it_stopped(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    repo.stall["model.safetensors"] = 12_000_000
    child = subprocess.Popen([sys.executable, "-c", CHILD, NAME, str(tmp_path)])
    try:
        while not any(path.stat().st_size > 0 for path in tmp_path.glob(".*.part/model.safetensors.part")):
            assert child.poll() is None, "the child ended before it was killed"
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    here = next(tmp_path.glob(".*.part/model.safetensors.part")).stat().st_size
    assert 0 < here < len(repo.files["model.safetensors"])
    assert not (tmp_path / "some-org--small.llama").exists()
    hub.requests.clear()
    pull(NAME, tmp_path)
    assert [request.headers.get("range") for request in hub.asked_for("/storage/")] == [f"bytes={here}-"]
    assert not hub.asked_for("tokenizer.json"), "a file that was whole is not brought again"
    brought = tmp_path / "some-org--small.llama" / "model.safetensors"
    assert brought.read_bytes() == repo.files["model.safetensors"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_with_a_wrong_hash_is_deleted_and_the_base_never_appears(
    hub: HubServer, repo: Repo, tmp_path: Path, name: str
) -> None:
    repo.corrupt.add(name)
    with pytest.raises(TunesmithError, match="another content") as caught:
        pull(NAME, tmp_path)
    assert caught.value.code == "wrong_hash"
    assert not (tmp_path / "some-org--small.llama").exists()
    assert not list(tmp_path.glob(f".*/{name}*"))
    repo.corrupt.clear()
    assert pull(NAME, tmp_path).revision == repo.commit


def test_pickle_only_repositories_are_refused_before_anything_is_brought(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    del repo.files["model.safetensors"]
    with pytest.raises(InvalidRequest, match=r"only pickle weights \(pytorch_model.bin\)"):
        pull(NAME, tmp_path)
    assert not hub.asked_for("/resolve/")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused_before_the_weights_are_brought(
    hub: HubServer, repo: Repo, tmp_path: Path, name: str
) -> None:
    repo.files[name] = json.dumps({**json.loads(repo.files[name]), "auto_map": {"AutoConfig": "modeling.Config"}}).encode()
    with pytest.raises(InvalidRequest, match="auto_map"):
        pull(NAME, tmp_path)
    assert not hub.asked_for("/storage/")


def test_an_adapter_is_not_taken_for_a_base(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    del repo.files["config.json"]
    with pytest.raises(InvalidRequest, match=r"no config.json"):
        pull(NAME, tmp_path)


def test_a_sharded_model_is_brought_by_its_index(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    shards = {"model-00001-of-00002.safetensors": b"one", "model-00002-of-00002.safetensors": b"two"}
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    repo.files |= {**shards, "model.safetensors.index.json": json.dumps(index).encode()}
    names = set(pull(NAME, tmp_path).files)
    assert set(shards) <= names
    assert "model.safetensors" not in names


def test_an_index_that_leads_out_of_the_folder_is_refused(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    repo.files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": "../../model.safetensors"}}).encode()
    with pytest.raises(InvalidRequest, match="names no safetensors file of its folder"):
        pull(NAME, tmp_path)


def test_a_missing_model_and_a_missing_revision_are_said_to_be_missing(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model some-org/nothing"):
        pull("some-org/nothing", tmp_path)
    with pytest.raises(NotFound, match="no revision 'v9'"):
        pull(NAME, tmp_path, revision="v9")
    with pytest.raises(InvalidRequest, match="Write ORG/NAME"):
        pull("../../etc", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_names_hf_token_and_is_brought_with_it(
    hub: HubServer, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    repo.token, repo.refusal = "hf_right", status
    with pytest.raises(Unauthorized, match="HF_TOKEN"):
        pull(NAME, tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    pull(NAME, tmp_path)
    assert all("authorization" not in request.headers for request in hub.asked_for("/storage/")), "the token left the hub"


def test_a_token_of_another_program_is_not_used(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = tmp_path / "token"
    stored.write_text("hf_stored")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(stored))
    pull(NAME, tmp_path / "models")
    assert all("authorization" not in request.headers for request in hub.requests)


def test_nothing_is_told_to_the_hub_but_what_is_asked_for(hub: HubServer, tmp_path: Path) -> None:
    pull(NAME, tmp_path)
    assert {request.path.split("/")[1] for request in hub.requests} == {"api", "some-org", "storage"}
    assert all(request.path.startswith(f"/api/models/{NAME}") for request in hub.asked_for("/api/"))
    assert not any("torch" in request.headers["user-agent"] for request in hub.requests)


def test_a_hub_that_is_not_there_is_one_sentence(tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(TunesmithError, match=r"http://127.0.0.1:1 cannot be reached") as caught:
        pull(NAME, tmp_path)
    assert caught.value.hint


LIMITED = f"""
import resource, sys
from pathlib import Path
from tunesmith.errors import StorageFull
from tunesmith.models.hub import pull
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
try:
    pull({NAME!r}, Path(sys.argv[1]))
except StorageFull as error:
    print(error)
"""


def test_a_full_disk_is_one_sentence_and_what_is_here_stays(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "is full" in done.stdout
    assert not (tmp_path / "some-org--small.llama").exists()
    assert pull(NAME, tmp_path).revision == repo.commit


def test_a_disk_that_is_too_small_is_said_before_the_weights_are_brought(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("tunesmith.models.hub.shutil.disk_usage", lambda path: usage)
    with pytest.raises(StorageFull, match=r"needs 0.0 GB more"):
        pull(NAME, tmp_path)
    assert not hub.asked_for("/storage/")


def test_the_command_tells_what_it_brought_and_lists_it(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "tunesmith", "models", *arguments, "--data-dir", str(tmp_path), "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    brought = json.loads(run("pull", NAME))
    assert (brought["id"], brought["revision"]) == (NAME, repo.commit)
    assert NAME in {model["id"] for model in json.loads(run("list"))}
    assert json.loads(run("remove", NAME))["kind"] == "hub"
    assert list((tmp_path / "models").iterdir()) == []
