"""Loading and unloading adapters as vLLM has it, and whoever speaks like it. Knows no processes."""

from pathlib import Path

from tunesmith.errors import EngineFailed, InvalidRequest
from tunesmith.serving.client import Client, said

NO_FOLDER = "No adapter found"
"""vLLM's words when the folder is not there, which it answers with 404 as it does for an unknown route."""
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


async def load_lora(client: Client, name: str, path: Path, label: str) -> None:
    """Registers the adapter in `path`, a folder that the engine can read too. One that is registered is no error.

    Raises InvalidRequest when the engine has no such route or refuses the adapter, EngineFailed when it fails.
    """
    status, body = await client.json("POST", LOAD, {"lora_name": name, "lora_path": str(path)})
    error = body.get("error") if isinstance(body, dict) else None
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    if status < 400 or "already been loaded" in message:
        return
    if status in {404, 405} and NO_FOLDER not in message:
        raise InvalidRequest(
            f"{label} takes no adapters: it has no route {LOAD}.", hint="Serve fine-tuned models with --engine embedded or vllm.",
            param="model", code="adapter_not_supported",
        )
    if status == 404:
        raise InvalidRequest(
            f"{label} cannot read the adapter's folder.", hint="It must see the same files as this machine.", param="model",
            code="adapter_not_supported",
        )
    told = said(status, body, label)
    clean = told.message.replace(str(path), "its folder")
    kind = EngineFailed if status >= 500 else InvalidRequest
    raise kind(f"{label} does not load the adapter: {clean}", hint="Its log tells more.", code="adapter_not_loaded")


async def unload_lora(client: Client, name: str) -> None:
    """Takes the name away; what vLLM holds of it gives way to others in time. One that is not registered is no error."""
    status, body = await client.json("POST", UNLOAD, {"lora_name": name})
    if status >= 400 and status != 404:
        raise said(status, body, "The engine")
