"""What a sequence begins with and what it leaves behind in the prefix cache. No torch; knows no steps, and no rows but by slot.

Whole blocks of what was computed are saved: a prompt's after each chunk, a completion's when its sequence leaves its row. A
sequence begins with the blocks that are stored; one whose next blocks are just being computed for another waits for them.
"""

from typing import NamedTuple

from tunesmith.engine.blocks import BLOCK, BlockStore, extend_chain
from tunesmith.engine.sequence import Sequence

MIN_AWAITED = 4
"""Blocks that another must be about to compute for a sequence to wait for them: fewer are sooner computed along."""


class Save(NamedTuple):
    """Positions [start, start + BLOCK * len(blocks)) of a row are copied into stored blocks."""

    slot: int
    start: int
    blocks: tuple[int, ...]


class Restore(NamedTuple):
    """Stored blocks are copied into a row, from position 0 on."""

    slot: int
    blocks: tuple[int, ...]


class SoftPrompt(NamedTuple):
    """Keys and values of an adapter's soft prompt are copied into a row, from position 0 on."""

    slot: int
    adapter: int


class Prefixes:
    """Identity numbers of sequences grow with their arrival."""

    def __init__(self, num_blocks: int):
        self.blocks = BlockStore(num_blocks)
        self.computing: dict[Sequence, list[bytes]] = {}
        """Sequences in their prefill, with the names of the blocks that they will have computed then."""
        self._awaited: dict[bytes, Sequence] = {}
        """The same by name: who is about to compute a block."""

    def must_wait(self, sequence: Sequence) -> bool:
        """Is one that came earlier, and is in its prefill, about to compute the blocks that it needs next?"""
        if not self._awaited:
            return False
        chain = self._wanted(sequence)
        at = self.blocks.match(chain) + MIN_AWAITED - 1
        other = self._awaited.get(chain[at]) if at < len(chain) else None
        return other is not None and other.id < sequence.id

    def begin(self, sequence: Sequence, slot: int) -> Restore | SoftPrompt | None:
        """Fills a new row with what is known without computing: stored blocks, or else the soft prompt."""
        chain = self._wanted(sequence)
        found = self.blocks.match(chain)
        if found * BLOCK < sequence.num_virtual:
            found = 0
        places = self.blocks.take(chain, found)
        if self._is_kept(sequence):
            names = self.computing[sequence] = self._chain(sequence, len(sequence.tokens))
            for name in names[found : self.blocks.total]:
                self._awaited.setdefault(name, sequence)
        if places:
            sequence.num_cached = found * BLOCK
            return Restore(slot, places)
        if sequence.num_virtual and sequence.adapter is not None:
            sequence.num_cached = sequence.num_virtual
            return SoftPrompt(slot, sequence.adapter)
        return None

    def advance(self, sequence: Sequence) -> Save | None:
        """More of a sequence in `computing` was computed."""
        if sequence.num_cached == len(sequence.tokens):
            self._forget_awaited(sequence)
        return self._save(sequence)

    def end(self, sequence: Sequence) -> Save | None:
        """A sequence leaves its row: saves what was computed, unless it failed."""
        self._forget_awaited(sequence)
        return None if sequence.finish_reason == "error" else self._save(sequence)

    def _save(self, sequence: Sequence) -> Save | None:
        """The whole blocks in a row that are not stored."""
        if sequence.slot is None or not self._is_kept(sequence):
            return None
        first, places = self.blocks.save(self._chain(sequence, sequence.num_cached))
        return Save(sequence.slot, first * BLOCK, places) if places else None

    def _forget_awaited(self, sequence: Sequence) -> None:
        for name in self.computing.pop(sequence, ()):
            if self._awaited.get(name) is sequence:
                del self._awaited[name]

    def _is_kept(self, sequence: Sequence) -> bool:
        return sequence.cache_root is not None and self.blocks.total > 0

    def _wanted(self, sequence: Sequence) -> list[bytes]:
        """Names of the blocks that it could begin with. One token at least is computed, and all where each position tells."""
        if not self._is_kept(sequence) or sequence.wants_embedding or sequence.sampling.prompt_logprobs:
            return []
        return self._chain(sequence, len(sequence.tokens) - 1)

    def _chain(self, sequence: Sequence, num_tokens: int) -> list[bytes]:
        """Names of the whole blocks in the first `num_tokens` tokens."""
        return extend_chain(sequence.chain, sequence.cache_root or b"", sequence.tokens, num_tokens // BLOCK)
