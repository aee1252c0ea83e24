"""A real server on loopback, in a thread of the test process, and the official client."""

import http.client
import json
import socket
import threading
from contextlib import ExitStack, contextmanager

import openai
import pytest
import uvicorn

from api.witness import Witness
from tunesmith.api.app import create_app
from tunesmith.db import keys
from tunesmith.db.migrate import open_database
from tunesmith.settings import Settings


class Served:
    """`desk` is the running app's; `request` speaks plain HTTP, for what the openai client would not send."""

    def __init__(self, port, app, key):
        self.port, self.key = port, key
        self.desk = app.state.desk
        self._clients = ExitStack()

    def client(self, **kwargs):
        """An official client, closed with the server."""
        made = openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", **{"api_key": self.key, "max_retries": 0, **kwargs})
        return self._clients.enter_context(made)

    def close(self):
        self._clients.close()

    def request(self, method, path, body=None, headers=None, key=True):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"authorization": f"Bearer {self.key}"} if key else {}
        connection.request(method, path, body=body, headers=sent | (headers or {}))
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, response.headers, json.loads(data) if data else None


@contextmanager
def serve(settings):
    database = open_database(settings.dirs.make().database, settings.database_url)
    with database.write() as connection:
        _, key = keys.create(connection, "test")
    database.close()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        app = create_app(settings.model_copy(update={"port": listening.getsockname()[1]}))
        witness = Witness(app)
        server = uvicorn.Server(uvicorn.Config(witness, log_level="warning", lifespan="on", timeout_graceful_shutdown=5))
        ready = threading.Event()
        startup = server.startup

        async def told(sockets=None):
            await startup(sockets=sockets)
            ready.set()

        server.startup = told
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not ready.wait(0.1):
            assert thread.is_alive(), "the server did not start"
        try:
            served = Served(listening.getsockname()[1], app, key)
            yield served
        finally:
            served.close()
            server.should_exit = True
            thread.join()
        assert not witness.problems, "OpenAI's specification does not allow:\n" + "\n".join(sorted(set(witness.problems)))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), threads=1, lazy=True, max_upload_bytes=4 * 1024 * 1024)
    with serve(settings) as running:
        yield running


@pytest.fixture(scope="session")
def talking(tmp_path_factory):
    """One server, and one engine, for all modules that only ask it: they override `served` by it."""
    aliases = {"gpt-4o-mini": "tunesmith/tiny"}
    with serve(Settings(data_dir=tmp_path_factory.mktemp("talking"), threads=1, lazy=True, aliases=aliases)) as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite-disk", "postgresql-s3"])
def served_everywhere(request, tmp_path_factory):
    """For tests of what is stored: once on SQLite and disk, once on PostgreSQL and S3. A module takes it as its `served`."""
    folder, where = tmp_path_factory.mktemp("data"), {}
    if request.param == "postgresql-s3":
        request.getfixturevalue("s3_server")
        where = {"database_url": request.getfixturevalue("postgresql").new_url(), "store": f"s3://bucket/{folder.name}"}
    with serve(Settings(data_dir=folder, threads=1, lazy=True, max_upload_bytes=4 * 1024 * 1024, **where)) as running:
        yield running


@pytest.fixture
def client(served):
    return served.client()
