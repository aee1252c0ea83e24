"""An adapter on disk: PEFT's two files and ours, in one folder that PEFT and vLLM load too. Imports no torch.

    adapter_model.safetensors   the tensors
    adapter_config.json         PEFT's configuration
    artifact.json               `AdapterInfo`: base and its revision, precision, rank, content hash

The content hash names the adapter: two adapters with the same one compute the same, and a changed byte changes it.
"""

import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from safetensors import SafetensorError

from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.models.catalog import Base, read_header
from tunesmith.models.shelf import read_json
from tunesmith.store import fsync_folder, storage_error, write_atomically
from tunesmith.types import Quantization

if TYPE_CHECKING:
    from tunesmith.recipes.run import Recipe

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
HEAD = "base_model.model.score.weight"
"""Of a reward model: the tensor [1, hidden size] that is multiplied with the last hidden state of a row."""
OURS = "artifact.json"


Kind = Literal["lora", "dora", "reward", "prompt", "prefix", "full"]
"""A LoRA; one that learns the lengths of a layer's outputs too, so that its own output and the update are multiplied by
`magnitude / norm(W + scaling B A)`; one with a head that gives one number to a whole row (`HEAD`); a soft prompt stored as
embeddings (prompt tuning, p-tuning); one stored as keys and values (prefix tuning); no adapter, but all weights (`whole.py`)."""

SOFT_KINDS: dict[str, Kind] = {"PROMPT_TUNING": "prompt", "P_TUNING": "prompt", "PREFIX_TUNING": "prefix"}
"""By PEFT's `peft_type`."""


class Saves(Protocol):
    """A PeftModel, as far as it is needed here."""

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None: ...


class RawTensor(NamedTuple):
    """A tensor as its file has it."""

    dtype: str
    """safetensors' word, such as F32."""
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter is, beside its tensors."""

    path: str
    """The folder."""
    content_hash: str
    rank: int
    alpha: float
    scaling: float
    """The update is multiplied by it: alpha / rank, or alpha / sqrt(rank) with rsLoRA."""
    targets: tuple[str, ...]
    """Names of the adapted layers, sorted."""
    base: str
    base_revision: str
    quantization: Quantization
    """Precision of the base that it was trained on; it is served on the same."""
    kind: Kind = "lora"
    num_virtual: int = 0
    """Positions of a soft prompt; 0 for a LoRA."""
    scalings: tuple[tuple[str, float], ...] = ()
    """Layers whose scaling is not `scaling`, by their whole names: rank and alpha patterns make them."""


def content_hash(tensors: Mapping[str, RawTensor], config: Mapping[str, Any]) -> str:
    """sha256 over names, dtypes, shapes and bytes, sorted by name, and over `config`. 64 hex digits."""
    whole = hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        whole.update(f"\n{name} {tensor.dtype} {list(tensor.shape)} {len(tensor.data)}\n".encode())
        whole.update(tensor.data)
    return whole.hexdigest()


def read_tensors(path: Path) -> dict[str, RawTensor]:
    """The tensors of a safetensors file, as bytes. Raises InvalidRequest if it is torn."""
    try:
        header = read_header(path)
        with open(path, "rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            tensors = {}
            for name, entry in header.items():
                begin, end = entry["data_offsets"]
                file.seek(start + begin)
                tensors[name] = RawTensor(entry["dtype"], tuple(entry["shape"]), file.read(end - begin))
                if len(tensors[name].data) != end - begin:
                    raise ValueError(f"the tensor {name} is cut off")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}.", hint="The file is damaged; save the adapter again.") from error
    return tensors


def save_adapter(model: Saves, folder: Path, base: Base, recipe: "Recipe") -> AdapterInfo:
    """Writes the model's adapter to `folder`, whole or not at all, in place of one that is there. Raises StorageFull."""
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True, mode=0o700)
        model.save_pretrained(str(part), safe_serialization=True, save_embedding_layers=False)
        (part / "README.md").unlink(missing_ok=True)
        # PEFT writes where the base lay on this machine; its name is true elsewhere too.
        config = read_json(part / CONFIG) | {"base_model_name_or_path": base.id}
        write_atomically(part / CONFIG, json.dumps(config, indent=1, sort_keys=True).encode())
        info = _describe(part, config, base.id, base.revision, recipe.quantization)
        write_atomically(part / OURS, json.dumps(asdict(info) | {"path": "."}, indent=1).encode())
        with open(part / WEIGHTS, "rb") as file:
            os.fsync(file.fileno())
        put_in_place(part, folder)
    except OSError as error:
        raise storage_error(error, folder) from error
    except SafetensorError as error:
        raise system_error(error, folder) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return _at(info, folder)


def system_error(error: SafetensorError, folder: Path) -> Exception:
    """What the system said, where it was the system: safetensors hides its errors in a sentence of its own."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return error if number is None else storage_error(OSError(int(number[1]), str(error)), folder)


def put_in_place(part: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(part, folder)
    fsync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def read_adapter(folder: Path) -> AdapterInfo:
    """The adapter in `folder`, checked against its hash. Raises NotFound, or InvalidRequest for what we cannot serve."""
    for name in (CONFIG, WEIGHTS, OURS):
        if not (folder / name).is_file():
            raise NotFound(f"There is no adapter in {folder}: {name} is missing.", hint="Name a run's artifacts/adapter folder.")
    told = read_json(folder / OURS)
    if not {"base", "base_revision", "quantization", "content_hash"} <= set(told):
        raise InvalidRequest(f"{folder / OURS} is not complete.", hint="Save the adapter again.")
    info = _describe(folder, read_json(folder / CONFIG), told["base"], told["base_revision"], told["quantization"])
    if info.content_hash != told["content_hash"]:
        raise InvalidRequest(f"The adapter in {folder} was changed after it was saved.", hint="Take an untouched copy.")
    return info


def _describe(folder: Path, config: dict[str, Any], base: str, revision: str, quantization: Quantization) -> AdapterInfo:
    check_servable(config, folder)
    tensors = read_tensors(folder / WEIGHTS)
    made = _describe_soft if config["peft_type"] in SOFT_KINDS else _describe_lora
    return made(folder, config, tensors, base, revision, quantization)


def _describe_lora(
    folder: Path, config: dict[str, Any], tensors: dict[str, RawTensor], base: str, revision: str, quantization: Quantization
) -> AdapterInfo:
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    scaling = _scaling(config, rank, alpha)
    targets = tuple(sorted({name.split(".lora_")[0].rpartition(".")[2] for name in tensors if name != HEAD}))
    hashed: dict[str, Any] = {"rank": rank, "alpha": alpha, "targets": targets, "scaling": scaling, "base_revision": revision}
    scalings = tuple(_own_scalings(config, tensors, scaling))
    if scalings:
        hashed["scalings"] = scalings
    kind: Kind = "reward" if HEAD in tensors else "dora" if config.get("use_dora") else "lora"
    if kind != "lora":
        hashed["kind"] = kind
    return AdapterInfo(
        path=str(folder), content_hash=content_hash(tensors, hashed), rank=rank, alpha=alpha, scaling=scaling, targets=targets,
        base=base, base_revision=revision, quantization=quantization, kind=kind, scalings=scalings,
    )


def _describe_soft(
    folder: Path, config: dict[str, Any], tensors: dict[str, RawTensor], base: str, revision: str, quantization: Quantization
) -> AdapterInfo:
    stored = tensors.get("prompt_embeddings")
    if stored is None or len(stored.shape) != 2:
        raise InvalidRequest(f"{folder / WEIGHTS} holds no prompt_embeddings.", hint="Save the adapter again.")
    kind = SOFT_KINDS[config["peft_type"]]
    hashed = {"kind": kind, "base_revision": revision}
    return AdapterInfo(
        path=str(folder), content_hash=content_hash(tensors, hashed), rank=0, alpha=0.0, scaling=0.0, targets=(), base=base,
        base_revision=revision, quantization=quantization, kind=kind, num_virtual=stored.shape[0],
    )


def _scaling(config: dict[str, Any], rank: int, alpha: float) -> float:
    """Hu et al. 2021; with rsLoRA Kalajdzievski 2023."""
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _own_scalings(config: dict[str, Any], tensors: Mapping[str, RawTensor], common: float) -> Iterator[tuple[str, float]]:
    """(layer, scaling) where a pattern gives a rank or an alpha of its own. PEFT's rule: the first key that ends the name."""
    for name in sorted(tensors):
        layer, _, rest = name.removeprefix("base_model.model.").partition(".lora_")
        if not rest.startswith("A"):
            continue
        alpha = float(_by_pattern(config.get("alpha_pattern"), layer, config["lora_alpha"]))
        scaling = _scaling(config, tensors[name].shape[0], alpha)
        if scaling != common:
            yield layer, scaling


def _by_pattern(pattern: dict[str, Any] | None, layer: str, otherwise: Any) -> Any:
    keys = (key for key in pattern or {} if re.match(rf"(.*\.)?({key})$", layer))
    return (pattern or {}).get(next(keys, ""), otherwise)


def check_servable(config: dict[str, Any], folder: Path) -> None:
    """Raises InvalidRequest unless PEFT's `config` is a LoRA or DoRA without additions, or a soft prompt: what can be served."""
    beyond = [
        name for name in ("modules_to_save", "target_parameters", "lora_bias", "trainable_token_indices")
        if config.get(name) and not (name == "modules_to_save" and _is_reward(config))
    ]
    if config.get("bias", "none") != "none":
        beyond.append("bias")
    if config.get("peft_type") not in {"LORA", *SOFT_KINDS}:
        beyond.append(f"peft_type {config.get('peft_type')}")
    if beyond:
        raise InvalidRequest(
            f"The adapter in {folder} uses {', '.join(beyond)}, which is not served here.",
            hint="Train a plain LoRA, or merge it into the base.", code="adapter_not_supported",
        )


def _is_reward(config: dict[str, Any]) -> bool:
    """Is the only module that is saved whole the head that gives scores? PEFT names both heads that there may be."""
    return config.get("task_type") == "SEQ_CLS" and set(config["modules_to_save"]) <= {"classifier", "score"}


def _at(info: AdapterInfo, folder: Path) -> AdapterInfo:
    return AdapterInfo(**(asdict(info) | {"path": str(folder)}))
