"""Rows and stored blocks keep what was written, through growth, moves, saves and restores."""

import torch

from tunesmith.engine.blocks import BLOCK
from tunesmith.engine.cache import MIN_BLOCKS, MIN_POSITIONS, RowCache, power_of_two
from tunesmith.engine.scheduler import Move, Restore, Save, SoftPrompt

HEADS, SIZE, LAYERS = 2, 4, 2
CPU = torch.device("cpu")


def filled(slots: int, length: int) -> tuple[RowCache, torch.Tensor]:
    """A cache with `length` positions in each slot, and what was written [layers, slots, positions, heads, head size]."""
    cache = RowCache(LAYERS, CPU)
    cache.reserve(slots, length)
    written = torch.arange(LAYERS * slots * length * HEADS * SIZE).float().view(LAYERS, slots, length, HEADS, SIZE)
    cells = torch.cat([torch.arange(length) + slot * cache.positions for slot in range(slots)])
    for layer in range(LAYERS):
        cache.write(layer, cells, written[layer].flatten(0, 1), -written[layer].flatten(0, 1))
    return cache, written


def row(cache: RowCache, slot: int, length: int) -> torch.Tensor:
    """[layers, positions, heads, head size] of the keys; checks that the values are theirs."""
    pairs = [cache.read(layer, slice(slot, slot + 1), length) for layer in range(LAYERS)]
    assert all(torch.equal(keys, -values) for keys, values in pairs)
    return torch.stack([keys[0].transpose(0, 1) for keys, _ in pairs])


def test_rows_stay_when_slots_and_positions_grow() -> None:
    cache, written = filled(3, 20)
    cache.reserve(5, MIN_POSITIONS + 1)
    assert (cache.num_slots, cache.positions) == (8, power_of_two(MIN_POSITIONS + 1))
    for slot in range(3):
        assert torch.equal(row(cache, slot, 20), written[:, slot])
    assert not row(cache, 7, 20).any()


def test_saved_blocks_come_back_in_another_row_after_the_store_has_grown() -> None:
    cache, written = filled(4, 3 * BLOCK)
    cache.copy([Save(1, 0, (5,)), Save(1, BLOCK, (2, 9)), Save(0, BLOCK, (1,))], {})
    cache.copy([Save(3, 0, (MIN_BLOCKS + 3,))], {})
    cache.copy([Move(3, 1), Restore(0, (5, 2, 9)), Restore(2, (MIN_BLOCKS + 3, 1))], {})
    assert torch.equal(row(cache, 0, 3 * BLOCK), written[:, 1])
    assert torch.equal(row(cache, 2, BLOCK), written[:, 3, :BLOCK])
    assert torch.equal(row(cache, 2, 2 * BLOCK)[:, BLOCK:], written[:, 0, BLOCK : 2 * BLOCK])
    assert torch.equal(row(cache, 1, 3 * BLOCK), written[:, 3])


def test_copies_of_one_step_are_made_in_their_order() -> None:
    cache, written = filled(3, BLOCK)
    cache.copy([Save(0, 0, (0,)), Move(2, 0), Save(0, 0, (1,)), Restore(1, (0,)), Restore(2, (1,))], {})
    assert torch.equal(row(cache, 1, BLOCK), written[:, 0])
    assert torch.equal(row(cache, 2, BLOCK), written[:, 2])


def test_a_soft_prompt_begins_a_row_and_a_cleared_row_is_zero() -> None:
    cache, written = filled(2, 8)
    keys = torch.rand(3, HEADS, SIZE)
    cache.copy([SoftPrompt(1, 7)], {7: [(keys, -keys)] * LAYERS})
    assert torch.equal(row(cache, 1, 8)[:, :3], torch.stack([keys] * LAYERS))
    assert torch.equal(row(cache, 1, 8)[:, 3:], written[:, 1, 3:])
    cache.clear(1)
    assert not row(cache, 1, 8).any()
    assert torch.equal(row(cache, 0, 8), written[:, 0])
