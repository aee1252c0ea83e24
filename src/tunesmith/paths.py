"""The one resolver of paths: where things lie in a data directory, and that a name cannot lead out of its folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from tunesmith.errors import InvalidRequest

PACKAGE = Path(__file__).parent
TINY = PACKAGE / "models" / "tiny"
"""The folder of the built-in base model, `tunesmith/tiny`."""

SUPPORT_DESK = PACKAGE / "data" / "assets" / "support_desk"
"""The folder of the shipped example data: train.jsonl and heldout.jsonl."""


def inside(root: Path, name: str) -> Path:
    """`root/name`, where `name` is one plain component. Raises InvalidRequest for `..`, separators, NUL or an empty name."""
    if not name or name in {".", ".."} or "/" in name or "\\" in name or "\0" in name or len(name) > 200:
        raise InvalidRequest(f"{name[:80]!r} is not a valid name.", hint="Use letters, digits, '.', '_' and '-'.", param="name")
    return root / name


@dataclass(frozen=True)
class DataDir:
    """Everything that one server keeps, under one folder (mode 0700)."""

    root: Path

    @classmethod
    def default(cls) -> "DataDir":
        """`$TUNESMITH_DATA_DIR`, or `.tunesmith` in the working directory."""
        return cls(Path(os.environ.get("TUNESMITH_DATA_DIR", ".tunesmith")).absolute())

    def make(self) -> "DataDir":
        for folder in (self.root, self.blobs, self.runs, self.models, self.logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self

    @property
    def database(self) -> Path:
        return self.root / "tunesmith.db"

    @property
    def secret(self) -> Path:
        """The server's own secret (mode 0600); without it no API key works."""
        return self.root / "secret"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def models(self) -> Path:
        """Bases brought by `tunesmith models add` and `pull`; one folder each, with a `source.json`."""
        return self.root / "models"

    @property
    def datasets(self) -> Path:
        """Datasets brought from a hub; one folder for each, its commit, configuration and split."""
        return self.root / "datasets"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def desk(self) -> Path:
        """Says where the server is that runs on this directory."""
        return self.root / "desk.json"

    @property
    def engines(self) -> Path:
        """Engines that are not ours, each in an environment of its own (`tunesmith engines install`)."""
        return self.root / "engines"

    def run(self, job_id: str) -> Path:
        return inside(self.runs, job_id)
