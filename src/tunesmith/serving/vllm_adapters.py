"""What vLLM will not serve, said before it is asked, and an adapter's folder as it wants it. Imports no torch."""

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from tunesmith.errors import InvalidRequest
from tunesmith.models.artifact import CONFIG, WEIGHTS, read_adapter
from tunesmith.models.drift import read_drift
from tunesmith.models.shelf import read_json
from tunesmith.serving.upstream import Adapter

PLAIN_INITS = {"true", "false", "gaussian", "eva", "orthogonal", "mica", "lora_ga"}
"""Starts of training after which a saved adapter is a plain LoRA; others change the base's weights."""
SERVED_MODULES = {"classifier", "score"}
REFUSED = (
    "use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora", "target_parameters",
)
"""Fields of PEFT's configuration that must be empty."""
NF4_PLUGIN = "vllm_bnb_plugin"
"""vLLM has no bitsandbytes of its own since 0.28."""


def preflight(adapter: Adapter, *, max_rank: int, nf4_on_full: bool, python: Path) -> None:
    """Raises InvalidRequest with what vLLM would refuse, or NotFound or InvalidRequest for files that are not as published."""
    info = read_adapter(adapter.path)
    if info.content_hash != adapter.content_hash:
        message = f"The adapter in {adapter.path} is not the one that was published."
        raise InvalidRequest(message, hint="Its content hash differs.", param="content_hash")
    if adapter.quantization == "int8":
        raise _refused("it was trained on an int8 base, which vLLM does not have", "Serve it with --engine embedded.")
    if adapter.quantization == "nf4" and not nf4_on_full and not _has_nf4(python):
        raise _refused(
            "it was trained on an NF4 base, which vLLM does not have",
            f"Serve it with --engine embedded, install {NF4_PLUGIN} beside vLLM, or set TUNESMITH_NF4_ON_FULL=true to serve it "
            "on the full-precision base, where its answers differ a little from those it was trained on.",
        )
    if adapter.quantization == "nf4" and nf4_on_full and "none" not in read_drift(adapter.path):
        raise _refused(
            "it was trained on an NF4 base, and nobody has measured what the full-precision base changes",
            f"`tunesmith verify {adapter.path} --on none` does, and writes it into the adapter's record.",
        )
    for reason in problems(read_json(adapter.path / CONFIG), max_rank=max_rank):
        raise _refused(reason, "Serve it with --engine embedded, or train a plain LoRA.")


def problems(config: dict[str, Any], *, max_rank: int) -> list[str]:
    """Why vLLM refuses an adapter with this configuration; empty when it does not."""
    found = [f"{name} is set" for name in REFUSED if config.get(name)]
    if config.get("peft_type") != "LORA":
        found.append(f"it is a {config.get('peft_type')} adapter, not a LoRA")
    if config.get("bias", "none") != "none":
        found.append("it has biases")
    if set(config.get("modules_to_save") or ()) - SERVED_MODULES:
        found.append(f"it holds whole modules ({', '.join(config['modules_to_save'])})")
    if str(config.get("init_lora_weights", True)).lower() not in PLAIN_INITS:
        found.append(f"it was begun with {config['init_lora_weights']}, which changes the base's weights")
    rank = max([int(config.get("r", 0)), *map(int, (config.get("rank_pattern") or {}).values())])
    if rank > max_rank:
        found.append(f"its rank {rank} is above {max_rank}, which this engine was started with (TUNESMITH_MAX_LORA_RANK)")
    return found


def lay_out(adapter: Adapter, folder: Path, *, served_name: str) -> Path:
    """The adapter under `folder`, whole or not at all, as a folder that never changes: its config names the base as it is served.

    The weights are the same file where the disk allows it, so that a model that is deleted meanwhile can still be read.
    """
    name = hashlib.sha256(f"{adapter.content_hash} {served_name}".encode()).hexdigest()[:32]
    if (folder / name).is_dir():
        return folder / name
    part = folder / f".{name}.{secrets.token_hex(4)}.part"
    part.mkdir(parents=True, mode=0o700)
    try:
        config = read_json(adapter.path / CONFIG) | {"base_model_name_or_path": served_name}
        (part / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True))
        try:
            os.link(adapter.path / WEIGHTS, part / WEIGHTS)
        except OSError:  # another disk, or one without links
            shutil.copyfile(adapter.path / WEIGHTS, part / WEIGHTS)
        os.replace(part, folder / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder / name


def _has_nf4(python: Path) -> bool:
    return any((python.parent.parent / "lib").glob(f"python3*/site-packages/{NF4_PLUGIN}"))


def _refused(reason: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"vLLM does not serve this adapter: {reason}.", hint=hint, param="model", code="adapter_not_supported")
