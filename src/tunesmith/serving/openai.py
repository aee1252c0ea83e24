"""Any OpenAI-compatible server, somewhere else: nothing is started here. It takes our adapters only if it speaks as vLLM does.

Its address is the owner's word, from a flag: a client's word never becomes one.
"""

import os
from urllib.parse import urlsplit

from tunesmith.errors import EngineFailed, InvalidRequest
from tunesmith.serving.client import Client
from tunesmith.serving.processes import EngineProcess
from tunesmith.serving.runtime_lora import load_lora, unload_lora
from tunesmith.serving.upstream import Adapter, State

START_SECONDS = 10.0
"""Longest wait for somebody to answer there."""


class OpenAI:
    """A `Kind`. `url` ends with /v1, or is the server's root."""

    model = None
    need_bytes = 0
    start_seconds = START_SECONDS

    def __init__(self, url: str, key_env: str | None):
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            hint = "Name it like http://10.0.0.5:8000/v1."
            raise InvalidRequest(f"{url!r} is no address of a server.", hint=hint, param="upstream")
        self._root = url.rstrip("/").removesuffix("/v1")
        self._key = os.environ.get(key_env, "") if key_env else ""
        if key_env and not self._key:
            hint = "Set it, or leave --upstream-key-env out."
            raise InvalidRequest(f"The environment has no {key_env}.", hint=hint, param="upstream_key_env")
        self.label = f"The server at {parts.netloc.rpartition('@')[2]}"
        self.log_hint = "Is it running, and may this machine reach it?"

    def launch(self) -> tuple[EngineProcess | None, Client]:
        return None, Client(self.label, base_url=self._root, key=self._key)

    async def state(self, client: Client, process: EngineProcess | None) -> State:
        status, body = await client.json("GET", "/v1/models")
        if status in {401, 403}:
            raise InvalidRequest(f"{self.label} refuses our key.", hint="Name another one with --upstream-key-env.")
        if status != 200 or not isinstance(body.get("data"), list):
            raise EngineFailed(f"{self.label} does not list its models (status {status}).", hint=self.log_hint)
        return State("ready", 1.0)

    async def models(self, client: Client) -> list[str]:
        return [str(model["id"]) for model in (await client.expect("GET", "/v1/models"))["data"]]

    async def load(self, client: Client, adapter: Adapter) -> None:
        await load_lora(client, adapter.name, adapter.path, self.label)

    async def unload(self, client: Client, adapter: Adapter) -> None:
        await unload_lora(client, adapter.name)

    async def metrics(self, client: Client) -> str:
        return ""

    async def set_threads(self, client: Client, num_threads: int) -> None:
        """Its threads are its own matter."""
