"""Our own engine: a child process (`processes.py`), spoken to over HTTP on a Unix socket. Imports no torch."""

from urllib.parse import quote

from tunesmith.serving.client import Client
from tunesmith.serving.processes import EngineOrder, EngineProcess, Run, run_by_name, start_engine
from tunesmith.serving.upstream import Adapter, State

START_SECONDS = 300.0
"""Longest wait for an engine to answer: a large base is read from a slow disk."""


class Embedded:
    """A `Kind`."""

    start_seconds = START_SECONDS

    def __init__(
        self, order: EngineOrder, need_bytes: int = 0, started: EngineProcess | None = None, run: Run = run_by_name
    ):
        """`started` is a process that was started by the same order already; it is taken over at the first launch."""
        self._order = order
        self._run = run
        self._started = started
        self.label = f"The engine for {order.base}"
        self.model = order.base
        self.need_bytes = need_bytes
        self.log_hint = f"See {order.log}."

    def launch(self) -> tuple[EngineProcess | None, Client]:
        process, self._started = self._started or start_engine(self._order, self._run), None
        return process, Client(self.label, socket=process.socket, key=process.key)

    async def state(self, client: Client, process: EngineProcess | None) -> State:
        status, body = await client.json("GET", "/health")
        if status != 200:
            return State("loading", float(body.get("progress", 0.0)), str(body.get("stage", "")))
        return State("ready", 1.0, "", int(body["running"]), int(body["waiting"]))

    async def models(self, client: Client) -> list[str]:
        return [model["id"] for model in (await client.expect("GET", "/v1/models"))["data"]]

    async def load(self, client: Client, adapter: Adapter) -> None:
        body = {"name": adapter.name, "path": str(adapter.path), "content_hash": adapter.content_hash}
        await client.expect("POST", "/adapters", body)

    async def unload(self, client: Client, adapter: Adapter) -> None:
        await client.expect("DELETE", f"/adapters/{quote(adapter.name)}")

    async def metrics(self, client: Client) -> str:
        return (await client.text("GET", "/metrics"))[1]

    async def set_threads(self, client: Client, num_threads: int) -> None:
        await client.expect("POST", "/threads", {"threads": num_threads})
