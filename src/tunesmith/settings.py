"""What a machine's owner sets: by environment variable (`TUNESMITH_...`) or flag. Read once, at start."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tunesmith.errors import InvalidRequest
from tunesmith.paths import DataDir

DEFAULT_BASE = "tunesmith/tiny"
ENGINE_OF = {
    "upstream": "openai", "upstream_key_env": "openai", "quantize": "embedded", "tensor_parallel": "vllm", "quantization": "vllm",
    "nf4_on_full": "vllm",
}
"""Settings that only one engine obeys: for another they are refused, not ignored."""


def to_aliases(pairs: list[str]) -> dict[str, str]:
    """`["gpt-4o-mini=tunesmith/tiny"]` as a table. Raises InvalidRequest."""
    for pair in pairs:
        if "=" not in pair:
            hint = "Name it like --alias gpt-4o-mini=tunesmith/tiny."
            raise InvalidRequest(f"{pair!r} is no alias.", hint=hint, param="alias")
    return {name: meant for name, _, meant in (pair.partition("=") for pair in pairs)}


READERS: dict[str, Callable[[str], object]] = {
    "bases": lambda text: tuple(text.split(",")),
    "aliases": lambda text: to_aliases(text.split(",")),
}
"""Settings that are lists, as an environment variable writes them: with commas."""


class Settings(BaseModel):
    """Settings of one server process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Path(".tunesmith")
    """Folder of database, files, runs and adapters."""
    database_url: str | None = None
    """PostgreSQL instead of the file in `data_dir`: postgresql://user:password@host/name."""
    store: str | None = None
    """S3-compatible storage for files instead of `data_dir`: s3://bucket/prefix, with keys where AWS's tools look for them."""
    host: str = "127.0.0.1"
    """Address to listen on; loopback unless told otherwise, because one key guards everything."""
    port: int = 8040
    bases: tuple[str, ...] = (DEFAULT_BASE,)
    """Base models that may be trained on and served; the first is the default."""
    aliases: dict[str, str] = {}
    """Other names of bases and fine-tuned models, such as gpt-4o-mini -> tunesmith/tiny: scripts name models of OpenAI's."""
    embedding_model: str | None = None
    """A base on the shelf that computes embeddings, whichever base is asked for them; without it, each base its own."""
    moderation_model: str | None = None
    """The base or fine-tuned model that judges for /v1/moderations; without it there are none."""
    threads: int = 0
    """CPU threads of the engine; 0 means all cores. While a training runs beside it, half of them."""
    engine: Literal["embedded", "vllm", "openai"] = "embedded"
    """Who computes: our own engine, vLLM in an environment of its own, or an OpenAI-compatible server elsewhere (`upstream`)."""
    upstream: str | None = None
    """Address of the server elsewhere, such as http://10.0.0.5:8000/v1."""
    upstream_key_env: str | None = None
    """Name of the environment variable with the key for `upstream`; the key itself is nowhere written down."""
    lazy: bool = False
    """Start an engine when it is first asked, instead of the default base's at once."""
    replicas: int = Field(1, ge=1, le=64)
    """Engines per base; each question goes to the one with the least to do."""
    quantize: Literal["none", "int8"] = "none"
    """int8 keeps weights of the embedded engine in 8 bits, for speed on a CPU; adapters trained on NF4 stay on NF4."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that one vLLM engine is spread over."""
    quantization: str | None = None
    """Passed to vLLM as --quantization."""
    max_adapters: int = Field(16, ge=1)
    """Adapters that are loaded on one engine at the same time; the least recently used gives way."""
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 64
    """Largest rank that vLLM makes room for; each adapter in its batch costs this much."""
    place_seconds: float = Field(30.0, gt=0)
    """How long a request waits for a place for its adapter when answers under way need all of them."""
    drain_seconds: float = Field(8.0, ge=0)
    """How long answers that are under way may take when the server, or a base, goes."""
    vllm_python: Path | None = None
    """Interpreter of an environment that has vLLM; the one that `tunesmith engines install vllm` made, when not set."""
    nf4_on_full: bool = False
    """Let vLLM serve adapters that were trained on NF4 on the full-precision base: nearly what was trained, not quite."""
    lease_seconds: float = 30.0
    """How long a worker may be silent before another attempt takes its job."""
    max_batches: int = Field(2, ge=1, le=64)
    """Batches that are worked on at the same time; the others wait."""
    batch_concurrency: int = Field(8, ge=1, le=256)
    """Requests of one batch that are under way at once: more for an engine on a GPU; on a CPU they slow down who is waiting."""
    max_eval_runs: int = Field(2, ge=1, le=64)
    """Eval runs that are worked on at the same time."""
    allow_private_webhooks: bool = False
    """Let webhooks be delivered to addresses of this machine and its networks, and without TLS."""
    min_examples: int = Field(10, ge=1)
    """Rows that a training file of a job must have; 10 as OpenAI has it."""
    max_upload_bytes: int = 512 * 1024 * 1024
    """Largest file; 512 MB is OpenAI's limit."""

    @model_validator(mode="after")
    def _check_engine(self) -> "Settings":
        """Raises InvalidRequest for a setting that its engine would not obey."""
        for name, engine in ENGINE_OF.items():
            if getattr(self, name) != type(self).model_fields[name].default and self.engine != engine:
                flag = f"--{name.replace('_', '-')}"
                message = f"{flag} is for --engine {engine}, not {self.engine}."
                raise InvalidRequest(message, hint=f"Leave {flag} out.", param=name)
        if self.engine == "openai" and self.upstream is None:
            hint = "Such as --upstream http://10.0.0.5:8000/v1."
            raise InvalidRequest("--engine openai needs the address of a server.", hint=hint, param="upstream")
        return self

    @model_validator(mode="after")
    def _check_aliases(self) -> "Settings":
        """Raises InvalidRequest for an alias that would hide a base, or that stands for another alias."""
        for name, meant in self.aliases.items():
            if name in self.bases or meant in self.aliases or not name or not meant:
                hint = "Name it like --alias gpt-4o-mini=tunesmith/tiny."
                raise InvalidRequest(f"{name}={meant} is no alias: only the right one names a model.", hint=hint, param="alias")
        return self

    @property
    def own_url(self) -> str:
        """Where a worker on this machine reaches this server. `port` is the real one by then."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    @property
    def dirs(self) -> DataDir:
        return DataDir(self.data_dir.absolute())

    @classmethod
    def from_environment(cls, **flags: object) -> "Settings":
        """Flags that are not None win over `TUNESMITH_<FIELD>`, which wins over the default."""
        values: dict[str, object] = {}
        for name in cls.model_fields:
            text = os.environ.get(f"TUNESMITH_{name.upper()}")
            if text is not None:
                values[name] = read(text) if (read := READERS.get(name)) else text
        values.update({name: value for name, value in flags.items() if value is not None})
        return cls.model_validate(values)
