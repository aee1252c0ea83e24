"""Backup and restore: one state of everything, taken while the server serves; nothing damaged or foreign is put back."""

import json
import tarfile
import threading

import openai
import pytest
from api.conftest import serve
from typer.testing import CliRunner

from tunesmith.cli import archive
from tunesmith.cli.backup import app as backup_app
from tunesmith.cli.restore import app as restore_app
from tunesmith.errors import InvalidRequest, TunesmithError
from tunesmith.paths import DataDir
from tunesmith.settings import Settings


def call(app, *arguments):
    """What the verb prints as JSON. Raises what it raises."""
    done = CliRunner().invoke(app, [str(each) for each in (*arguments, "--json")])
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


@pytest.fixture(params=["sqlite-disk", "postgresql-s3"])
def places(request, tmp_path, monkeypatch):
    """Settings of a server, and of another one to restore to."""
    made = []
    for name in ("here", "there"):
        where = {}
        if request.param == "postgresql-s3":
            import postgres

            monkeypatch.setenv("PATH", str(postgres.find_programs()), prepend=":")
            request.getfixturevalue("s3_server")
            server = request.getfixturevalue("postgresql")
            where = {"database_url": server.new_url(empty=name == "there"), "store": f"s3://bucket/{tmp_path.name}/{name}"}
        made.append(Settings(data_dir=tmp_path / name, lazy=True, threads=1, **where))
    return made


def flags(settings):
    named = {"--data-dir": settings.data_dir, "--database-url": settings.database_url, "--store": settings.store}
    return [part for name, value in named.items() if value is not None for part in (name, value)]


def test_a_copy_taken_while_files_come_and_go_is_whole_and_comes_back(places, tmp_path):
    here, there = places
    stop, failed = threading.Event(), []

    def busy(client):
        while not stop.is_set():
            try:
                file = client.files.create(file=("a.jsonl", b"come and gone"), purpose="evals")
                client.files.delete(file.id)
            except openai.OpenAIError as error:
                failed.append(error)

    with serve(here) as served:
        client = served.client()
        kept = client.files.create(file=("kept.jsonl", b"kept" * 100_000), purpose="evals")
        upload = client.uploads.create(bytes=6, filename="x.jsonl", mime_type="text/jsonl", purpose="batch")
        part = client.uploads.parts.create(upload.id, data=b"abc").id
        folder = here.dirs.run("ftjob-1")
        (folder / "checkpoints" / "step-1").mkdir(parents=True)
        (folder / "checkpoints" / "step-1" / "manifest.json").write_text("{}")
        (folder / "events.jsonl").write_text("{}\n")
        thread = threading.Thread(target=busy, args=(client,))
        thread.start()
        made = call(backup_app, tmp_path / "copy.tar", *flags(here))
        stop.set()
        thread.join()
        key = served.key
    assert not failed
    assert call(restore_app, tmp_path / "copy.tar", *flags(there))["num_files"] == made["num_files"]
    assert (there.dirs.run("ftjob-1") / "checkpoints" / "step-1" / "manifest.json").read_text() == "{}"
    with serve(there) as served:
        client = served.client(api_key=key)
        assert client.files.content(kept.id).read() == b"kept" * 100_000
        for file in client.files.list():
            client.files.content(file.id).read()
        rest = client.uploads.parts.create(upload.id, data=b"def").id
        done = client.uploads.complete(upload.id, part_ids=[part, rest])
        assert client.files.content(done.file.id).read() == b"abcdef"
    assert not list(here.data_dir.glob(".backup-*"))
    assert not list(there.data_dir.glob(".restore-*"))


@pytest.fixture
def copy(tmp_path):
    here = Settings(data_dir=tmp_path / "here", lazy=True, threads=1)
    with serve(here) as served:
        served.client().files.create(file=("kept.jsonl", b"kept"), purpose="evals")
    call(backup_app, tmp_path / "copy.tar", "--data-dir", here.data_dir)
    return tmp_path / "copy.tar"


def test_nothing_is_replaced_unless_told(copy, tmp_path):
    here = tmp_path / "here"
    with pytest.raises(InvalidRequest, match="is there already"):
        call(backup_app, copy, "--data-dir", here)
    with pytest.raises(InvalidRequest, match="There is a server's data"):
        call(restore_app, copy, "--data-dir", here)
    DataDir(here).database.write_bytes(b"broken")
    call(restore_app, copy, "--data-dir", here, "--overwrite")
    assert DataDir(here).database.read_bytes().startswith(b"SQLite format 3")


def test_a_running_server_is_not_replaced_under_its_feet(copy, tmp_path):
    import os

    DataDir(tmp_path / "here").desk.write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()}))
    with pytest.raises(TunesmithError, match="A server runs on"):
        call(restore_app, copy, "--data-dir", tmp_path / "here", "--overwrite")


def test_a_damaged_copy_replaces_nothing(copy, tmp_path):
    data = bytearray(copy.read_bytes())
    at = data.index(b"SQLite format 3") + 5000
    data[at] ^= 1
    copy.write_bytes(data)
    with pytest.raises(InvalidRequest, match="database.db is damaged"):
        call(restore_app, copy, "--data-dir", tmp_path / "there")
    assert not DataDir(tmp_path / "there").database.exists()
    copy.write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidRequest, match="not a whole backup"):
        call(restore_app, copy, "--data-dir", tmp_path / "there")


def test_nothing_foreign_is_unpacked(copy, tmp_path):
    with tarfile.open(copy) as old, tarfile.open(tmp_path / "evil.tar", "w") as new:
        manifest = json.loads(old.extractfile(archive.MANIFEST).read())
        info = tarfile.TarInfo("../outside")
        new.addfile(info)
        manifest["files"] = {"../outside": {"bytes": 0, "sha256": ""}}
        (tmp_path / "m.json").write_text(json.dumps(manifest))
        new.add(tmp_path / "m.json", archive.MANIFEST)
    with pytest.raises(InvalidRequest, match="something foreign"):
        call(restore_app, tmp_path / "evil.tar", "--data-dir", tmp_path / "there")
    assert not (tmp_path / "outside").exists()


def test_a_copy_of_another_kind_of_database_is_refused(copy, tmp_path):
    with pytest.raises(InvalidRequest, match="is of sqlite, not of postgresql"):
        call(restore_app, copy, "--data-dir", tmp_path / "there", "--database-url", "postgresql://nobody@nowhere/none")
