"""The stored blocks of sequences that were computed before: which there are, and under what name. No torch: what they hold, keys
and values, lies elsewhere.

A block is named by a hash over its parent's name and its own tokens; the first block's parent is the sequence's `cache_root`.
The name therefore says everything that its keys and values depend on: base, adapter, media, tenant and all tokens so far. It is
a cryptographic hash of 32 bytes, so that two contents with one name cannot be made, and tokens need not be compared again.
Blocks of an adapter that was unloaded are not looked for: its content hash is in the root. They go when room is needed.
"""

import struct
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence as Many
from hashlib import blake2b

BLOCK = 16
"""Tokens of a block."""

_pack = struct.Struct(f"<{BLOCK}q").pack


def extend_chain(chain: list[bytes], root: bytes, tokens: list[int], count: int) -> list[bytes]:
    """Makes `chain`, the names of a sequence's first blocks, at least `count` long, and returns the first `count` names."""
    parent = chain[-1] if chain else root
    for start in range(len(chain) * BLOCK, count * BLOCK, BLOCK):
        parent = blake2b(parent + _pack(*tokens[start : start + BLOCK]), digest_size=32).digest()
        chain.append(parent)
    return chain[:count]


class BlockStore:
    """`total` places, numbered from 0. When all are taken, the block goes that was longest unwanted, children before parents.

    What was asked for or saved since the last `end_step` stays, for copies that are not made yet name it.
    """

    def __init__(self, total: int):
        self.total = total
        self.num_queried_tokens = 0
        """Tokens in whole blocks that were looked for."""
        self.num_hit_tokens = 0
        """Those of them that were found."""
        self.clear()

    def clear(self) -> None:
        """Forgets all blocks."""
        self._free = list(range(self.total - 1, -1, -1))
        self._places: OrderedDict[bytes, int] = OrderedDict()
        """Name -> place, the one to evict first. A parent always stands behind its children, so that the first has none."""
        self._kept: set[bytes] = set()

    @property
    def used(self) -> int:
        return len(self._places)

    def match(self, chain: Many[bytes]) -> int:
        """How many blocks of a chain are stored. None is stored without its parents: no need to look at each."""
        return bisect_left(range(len(chain)), True, key=lambda at: chain[at] not in self._places)

    def take(self, chain: list[bytes], count: int) -> tuple[int, ...]:
        """Places of the first `count` blocks of a chain, which are stored. Counted as a query for all of it."""
        self.num_queried_tokens += len(chain) * BLOCK
        self.num_hit_tokens += count * BLOCK
        self._touch(chain[:count])
        return tuple(self._places[name] for name in chain[:count])

    def save(self, chain: list[bytes]) -> tuple[int, tuple[int, ...]]:
        """Finds places for the blocks of a chain that are not stored: the number of the first of them, and the places.

        Where nothing may be evicted, the last blocks are left out.
        """
        first = self.match(chain)
        self._touch(chain[:first])
        places: list[int] = []
        while first + len(places) < len(chain) and self._has_place():
            places.append(self._free.pop())
        for name, place in zip(chain[first:], places, strict=False):
            self._places[name] = place
        self._touch(chain[: first + len(places)])
        return first, tuple(places)

    def end_step(self) -> None:
        """The copies that name blocks are handed out; from now on any block may go."""
        self._kept.clear()

    def _has_place(self) -> bool:
        """Evicts a block if that is needed for a free place."""
        if self._free:
            return True
        oldest = next(iter(self._places), None)
        if oldest is None or oldest in self._kept:
            return False
        self._free.append(self._places.pop(oldest))
        return True

    def _touch(self, chain: list[bytes]) -> None:
        """Notes that a chain's first blocks are wanted: the deepest first, so that parents are wanted after their children."""
        for name in reversed(chain):
            self._places.move_to_end(name)
        self._kept.update(chain)
