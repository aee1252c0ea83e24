"""What requests change in the model's logits before a token is drawn: penalties, biases, and masks of what may not come.

Rows that ask for nothing are not looked at. Penalties are counted as tokens come, never anew. Knows no text and no grammar.
"""

from array import array
from weakref import WeakKeyDictionary

import torch

from tunesmith.engine.sequence import Sequence
from tunesmith.errors import TunesmithError

NEVER = float("-inf")
BARS = torch.tensor([[0.0 if byte >> bit & 1 else NEVER for bit in range(8)] for byte in range(256)])
"""[256, 8] what a byte of a mask adds to the logits of its eight tokens. Adding is eight times faster on a CPU than filling."""

Failures = dict[int, TunesmithError]
"""Row -> why it can have no token."""


class History:
    """The different tokens of one sequence, and how often the completion holds each; the prompt's count 0."""

    def __init__(self, sequence: Sequence):
        self.ids = array("q")
        self.counts = array("f")
        self._places: dict[int, int] = {}
        self._num_seen = sequence.num_prompt_tokens
        if sequence.sampling.repetition_penalty != 1:
            for token in sequence.tokens[sequence.num_virtual : sequence.num_prompt_tokens]:
                self._place(token)

    def follow(self, tokens: list[int]) -> None:
        """Counts what came since the last call."""
        for token in tokens[self._num_seen :]:
            self.counts[self._place(token)] += 1
        self._num_seen = len(tokens)

    def _place(self, token: int) -> int:
        place = self._places.setdefault(token, len(self.ids))
        if place == len(self.ids):
            self.ids.append(token)
            self.counts.append(0)
        return place


_histories: WeakKeyDictionary[Sequence, History] = WeakKeyDictionary()
"""Of the sequences with penalties that live."""


def shape(logits_RV: torch.Tensor, sequences: list[Sequence]) -> tuple[torch.Tensor, Failures]:
    """The logits to draw from; the same tensor when no row changes anything."""
    changed = [row for row, sequence in enumerate(sequences) if sequence.sampling.changes_logits]
    constrained = [row for row, sequence in enumerate(sequences) if sequence.constraint is not None]
    if not changed and not constrained:
        return logits_RV, {}
    logits_RV = logits_RV.clone()
    if changed:
        penalise(logits_RV, changed, sequences)
        bias(logits_RV, changed, sequences)
    return logits_RV, mask(logits_RV, constrained, sequences) if constrained else {}


def penalise(logits_RV: torch.Tensor, rows: list[int], sequences: list[Sequence]) -> None:
    """In place. Repetition first (Keskar et al. 2019), then OpenAI's two: logit - count * frequency - (count > 0) * presence."""
    samplings = [sequences[row].sampling for row in rows]
    wanted = torch.tensor(
        [(s.repetition_penalty, s.presence_penalty, s.frequency_penalty) for s in samplings], device=logits_RV.device
    )
    histories = []
    for row in rows:
        history = _histories.get(sequences[row])
        if history is None:
            history = _histories[sequences[row]] = History(sequences[row])
        history.follow(sequences[row].tokens)
        histories.append(history)
    if not any(len(history.ids) for history in histories):
        return
    lengths = torch.tensor([len(history.ids) for history in histories])
    # N: every token of every row, one after the other.
    rows_N = torch.tensor(rows).repeat_interleave(lengths).to(logits_RV.device)
    ids_N = torch.frombuffer(bytearray(b"".join(h.ids for h in histories)), dtype=torch.int64).to(logits_RV.device)
    counts_N = torch.frombuffer(bytearray(b"".join(h.counts for h in histories)), dtype=torch.float32).to(logits_RV.device)
    repetition_N, presence_N, frequency_N = wanted.repeat_interleave(lengths.to(logits_RV.device), dim=0).unbind(1)
    logits_N = logits_RV[rows_N, ids_N]
    logits_N = torch.where(logits_N > 0, logits_N / repetition_N, logits_N * repetition_N)
    logits_RV[rows_N, ids_N] = logits_N - counts_N * frequency_N - (counts_N > 0) * presence_N


def bias(logits_RV: torch.Tensor, rows: list[int], sequences: list[Sequence]) -> None:
    """In place: the given biases, and no end token before its time. A tokenizer may have tokens that the model has not."""
    num_tokens = logits_RV.shape[-1]
    places: list[tuple[int, int]] = []
    added: list[float] = []
    for row in rows:
        sequence = sequences[row]
        is_young = sequence.num_completion_tokens < sequence.sampling.min_tokens
        ends = [(token, NEVER) for token in sequence.end_tokens] if is_young else []
        for token, value in (*sequence.sampling.logit_bias, *ends):
            if token < num_tokens:
                places.append((row, token))
                added.append(value)
    if places:
        at = torch.tensor(places, device=logits_RV.device).unbind(1)
        logits_RV.index_put_(at, torch.tensor(added, device=logits_RV.device), accumulate=True)


def mask(logits_RV: torch.Tensor, rows: list[int], sequences: list[Sequence]) -> Failures:
    """In place: what a constraint does not allow cannot come. Rows whose constraint cannot tell are left as they are."""
    failures: Failures = {}
    good, masks = [], []
    for row in rows:
        constraint = sequences[row].constraint
        if constraint is None:
            continue
        try:
            masks.append(constraint.allowed())
            good.append(row)
        except TunesmithError as error:
            failures[row] = error
    if good:
        bytes_GB = torch.frombuffer(bytearray(b"".join(masks)), dtype=torch.uint8).view(len(good), -1).to(logits_RV.device)
        logits_RV.index_add_(0, torch.tensor(good, device=logits_RV.device), bars(bytes_GB, logits_RV.shape[-1]))
    return failures


def bars(bytes_GB: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """[G, num_tokens] 0 where a bit is set, lowest first, else and beyond the last minus infinity."""
    bars_GV = torch.nn.functional.embedding(bytes_GB.int(), BARS.to(bytes_GB.device)).flatten(1)[:, :num_tokens]
    return torch.nn.functional.pad(bars_GV, (0, num_tokens - bars_GV.shape[-1]), value=NEVER)
