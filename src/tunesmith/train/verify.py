"""Who is proven against whom: a run's model against an engine of its own, and, by hand, an adapter's folder loaded by both.

A run that does not pass ends as failed, and keeps what it made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tunesmith.data.examples import Example
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.errors import InvalidRequest
from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base, find_base
from tunesmith.models.drift import Drift, write_drift
from tunesmith.models.loader import Head, load_base
from tunesmith.models.whole import read_trained
from tunesmith.serving.processes import EngineOrder
from tunesmith.serving.upstream import Adapter
from tunesmith.train import drift, proof
from tunesmith.train.attempt import Attempt
from tunesmith.train.conversations import NUM_CONVERSATIONS, Conversation, of_file, of_run, of_skills
from tunesmith.train.saved import load_adapter
from tunesmith.train.score_proof import check_scores
from tunesmith.train.tools import MakeUpstream, own_engine
from tunesmith.types import Quantization

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
        whole = self.adapter is None  # a base that no shelf knows
        quantization = "none" if whole else self.info.quantization
        return EngineOrder(str(self.base.folder) if whole else self.base.id, quantization, models_dir, threads, log)


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


@dataclass(frozen=True)
class Asked:
    """What is to be verified by hand."""

    folder: Path
    models_dir: Path | None
    file: Path | None = None
    """Rows to ask; None makes conversations of the built-in skills."""
    count: int = NUM_CONVERSATIONS
    threads: int = 0
    log: Path = Path(LOG)


def prove_folder(asked: Asked, make_upstream: MakeUpstream = own_engine) -> dict[str, Any]:
    """The same for what a run made earlier, loaded from its folder by both.

    Raises ServedDiffers, NotFound, InvalidRequest, InvalidData, EngineFailed.
    """
    what, shown = _opened(asked)
    model = _loaded(what, what.info.quantization)
    return _prove(model, what, shown, what.order(asked.models_dir, asked.threads, asked.log), make_upstream, _device())


def measure_drift(asked: Asked, there: Quantization) -> Drift:
    """How far the adapter's answers are on a base of the precision `there`; it goes into the adapter's record.

    Raises NotFound, InvalidRequest, InvalidData.
    """
    what, shown = _opened(asked)
    if what.info.kind == "reward":
        raise InvalidRequest(f"{asked.folder} is a reward model; drift is measured of answers.", hint="Compare its scores.")
    if what.adapter is None or what.info.quantization == there:
        message = f"{asked.folder} is served on {what.info.quantization}, so there is nothing to compare."
        raise InvalidRequest(message, hint="Name another precision.", param="on")
    found = drift.measure(_loaded(what, what.info.quantization), _loaded(what, there), shown, _device())
    write_drift(asked.folder, there, found)
    return found


def _opened(asked: Asked) -> tuple[Subject, list[Conversation]]:
    info = read_trained(asked.folder)
    what = subject(info, find_base(info.base, asked.models_dir))
    tokenizer = load_tokenizer(what.base.folder)
    if asked.file is None:
        return what, of_skills(tokenizer, asked.count, what.max_positions)
    return what, of_file(asked.file, tokenizer, asked.count, what.max_positions)


def _loaded(what: Subject, quantization: Quantization) -> torch.nn.Module:
    """As the trainer has it."""
    device = _device()
    head: Head = "score" if what.info.kind == "reward" else "words"
    model = load_base(what.base, quantization, dtype=proof.dtype_on(device), device=device, head=head)
    return model if what.adapter is None else load_adapter(model, what.adapter.path)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _prove(
    model: torch.nn.Module, what: Subject, conversations: list[Conversation], order: EngineOrder, make_upstream: MakeUpstream,
    device: str,
) -> dict[str, Any]:
    folder, upstream = Path(what.info.path), make_upstream(order)
    if what.info.kind == "reward" and what.adapter is not None:
        return proof.write(folder, check_scores(model, what.base, what.adapter, conversations, upstream, device))
    found = proof.check(model, what.base, what.adapter, conversations, upstream, device, num_virtual=what.info.num_virtual)
    return proof.write(folder, found)
