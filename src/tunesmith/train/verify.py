"""Who is proven against whom: a run's model against an engine of its own, and, by hand, an adapter's folder loaded by both.

A run that does not pass ends as failed, and keeps what it made.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tunesmith.data.examples import Example
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base, find_base
from tunesmith.models.loader import load_base
from tunesmith.models.whole import read_trained
from tunesmith.serving.processes import EngineOrder
from tunesmith.serving.upstream import Adapter
from tunesmith.train import proof
from tunesmith.train.attempt import Attempt
from tunesmith.train.conversations import NUM_CONVERSATIONS, Conversation, of_file, of_run, of_skills
from tunesmith.train.saved import load_adapter
from tunesmith.train.tools import MakeUpstream, own_engine

LOG = "engine.log"


class Subject(NamedTuple):
    """What is served: an adapter on a base, or a base of its own, all of whose weights were trained."""

    base: Base
    adapter: Adapter | None
    info: AdapterInfo

    @property
    def max_positions(self) -> int:
        """Those that a row can have."""
        return self.base.max_positions - self.info.num_virtual

    def order(self, models_dir: Path | None, threads: int, log: Path) -> EngineOrder:
        whole = self.adapter is None
        base, quantization = (str(self.base.folder), "none") if whole else (self.base.id, self.info.quantization)
        return EngineOrder(base, quantization, models_dir, threads, log)  # type: ignore[arg-type]


def subject(info: AdapterInfo, base: Base) -> Subject:
    """`base` is the one that it was trained on."""
    if info.kind == "full":
        return Subject(find_base(str(Path(info.path).absolute())), None, info)
    return Subject(base, Adapter(Path(info.path).absolute(), info.content_hash, info.quantization), info)


def prove_run(attempt: Attempt, info: AdapterInfo) -> dict[str, Any] | None:
    """The proof of what a run has just saved, as it stands in the result; None where the recipe wants none.

    Raises ServedDiffers, EngineFailed.
    """
    work, tools = attempt.work, attempt.tools
    if not work.recipe.evaluation.verify:
        return None
    tools.emit("phase", phase="verifying", message="Comparing what is served with what was trained")
    what = subject(info, work.base)
    shown = _some(attempt.held_out) or _some(work.rows)
    model: Any = attempt.trainer.model
    tokenizer: Any = attempt.trainer.processing_class  # as the rows were encoded, whatever the base's files say by now
    conversations = of_run(work.recipe.data, attempt.folder.root, tokenizer, shown)
    order = what.order(tools.models_dir, work.recipe.threads, attempt.folder.root / LOG)
    return _prove(model, what, conversations, order, tools.upstream, work.device)


def _some(rows: Sequence[Example]) -> list[Example]:
    return [rows[number] for number in range(min(NUM_CONVERSATIONS, len(rows)))]


def prove_folder(
    folder: Path, *, models_dir: Path | None, file: Path | None, count: int, threads: int, log: Path,
    make_upstream: MakeUpstream = own_engine,
) -> dict[str, Any]:
    """The same for what a run made earlier, loaded from its folder by both; conversations of a file, or of the built-in skills.

    Raises ServedDiffers, NotFound, InvalidRequest, InvalidData, EngineFailed.
    """
    info = read_trained(folder)
    what = subject(info, find_base(info.base, models_dir))
    tokenizer = load_tokenizer(what.base.folder)
    shown = (
        of_skills(tokenizer, count, what.max_positions) if file is None else of_file(file, tokenizer, count, what.max_positions)
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_base(
        what.base, what.info.quantization, dtype=torch.float32 if device == "cpu" else torch.bfloat16, device=device
    )
    if what.adapter is not None:
        model = load_adapter(model, folder)
    return _prove(model, what, shown, what.order(models_dir, threads, log), make_upstream, device)


def _prove(
    model: torch.nn.Module, what: Subject, conversations: list[Conversation], order: EngineOrder, make_upstream: MakeUpstream,
    device: str,
) -> dict[str, Any]:
    found = proof.check(
        model, what.base, what.adapter, conversations, make_upstream(order), device, num_virtual=what.info.num_virtual
    )
    return proof.write(Path(what.info.path), found)
