"""What a machine's owner sets: by environment variable (`TUNESMITH_...`) or flag. Read once, at start."""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tunesmith.paths import DataDir

DEFAULT_BASE = "tunesmith/tiny"


class Settings(BaseModel):
    """Settings of one server process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Path(".tunesmith")
    """Folder of database, files, runs and adapters."""
    host: str = "127.0.0.1"
    """Address to listen on; loopback unless told otherwise, because one key guards everything."""
    port: int = 8040
    bases: tuple[str, ...] = (DEFAULT_BASE,)
    """Base models that may be trained on and served; the first is the default."""
    threads: int = 0
    """CPU threads of the engine; 0 means all cores."""
    lease_seconds: float = 30.0
    """How long a worker may be silent before another attempt takes its job."""
    max_upload_bytes: int = 512 * 1024 * 1024
    """Largest file; 512 MB is OpenAI's limit."""

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
                values[name] = tuple(text.split(",")) if name == "bases" else text
        values.update({name: value for name, value in flags.items() if value is not None})
        return cls.model_validate(values)
