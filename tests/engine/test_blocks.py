"""A block is found by all that its contents depend on and nothing else; no place is given twice; parents outlive children."""

import random

import pytest

from tunesmith.engine.blocks import BLOCK, BlockStore, extend_chain


def chain(root: bytes, *blocks: int) -> list[bytes]:
    """Names of blocks of which each holds one token again and again."""
    tokens = [token for token in blocks for _ in range(BLOCK)]
    return extend_chain([], root, tokens, len(blocks))


def test_what_was_saved_is_found_as_far_as_it_agrees() -> None:
    store = BlockStore(8)
    assert store.save(chain(b"a", 1, 2, 3)) == (0, (0, 1, 2))
    assert store.match(chain(b"a", 1, 2, 9, 3)) == 2
    assert store.take(chain(b"a", 1, 2, 9, 3), 2) == (0, 1)
    assert store.save(chain(b"a", 1, 2, 9)) == (2, (3,))
    assert store.save(chain(b"a", 1, 2, 9)) == (3, ())
    assert (store.used, store.num_queried_tokens, store.num_hit_tokens) == (4, 64, 32)


def test_another_root_another_parent_or_another_token_is_another_block() -> None:
    names = [*chain(b"a", 1, 1), *chain(b"b", 1), *chain(b"a", 2, 1), *chain(b"a", -1)]
    assert len(set(names)) == len(names)


def test_a_chain_grows_by_what_is_new_only() -> None:
    tokens = list(range(5 * BLOCK))
    grown: list[bytes] = []
    extend_chain(grown, b"r", tokens, 2)
    assert extend_chain(grown, b"other", tokens, 5) == extend_chain([], b"r", tokens, 5)
    assert extend_chain(grown, b"r", tokens, 3) == grown[:3]


def test_the_longest_unwanted_goes_first_and_children_before_parents() -> None:
    store = BlockStore(4)
    store.save(chain(b"a", 1, 2))
    store.save(chain(b"a", 7, 8))
    store.end_step()
    store.take(chain(b"a", 1), 1)
    store.end_step()
    store.save(chain(b"b", 1))
    assert [store.match(chain(b"a", 1, 2)), store.match(chain(b"a", 7, 8))] == [1, 2]
    store.save(chain(b"b", 1, 2))
    assert [store.match(chain(b"a", 1, 2)), store.match(chain(b"a", 7, 8))] == [1, 1]


def test_what_this_step_names_stays() -> None:
    store = BlockStore(3)
    assert store.save(chain(b"a", 1, 2)) == (0, (0, 1))
    assert store.save(chain(b"b", 1, 2)) == (0, (2,))
    assert store.match(chain(b"a", 1, 2)) == 2
    store.end_step()
    assert store.save(chain(b"b", 1, 2)) == (1, (1,))


@pytest.mark.parametrize("total", [0, 1])
def test_a_store_that_is_too_small_keeps_what_it_can(total: int) -> None:
    store = BlockStore(total)
    assert len(store.save(chain(b"a", 1, 2))[1]) == total
    assert store.match(chain(b"a", 1, 2)) == total


def test_whatever_comes_no_place_is_lost_or_given_twice_and_no_block_stands_without_its_parent() -> None:
    dice, store = random.Random(1), BlockStore(12)
    held: dict[int, bytes] = {}
    for _ in range(3_000):
        names = chain(bytes([dice.randrange(2)]), *(dice.randrange(2) for _ in range(dice.randrange(1, 7))))
        if dice.random() < 0.5:
            first, places = store.save(names)
            held.update(zip(places, names[first:], strict=False))
        else:
            found = store.match(names)
            assert found == next((at for at, name in enumerate(names) if name not in store._places), len(names))
            assert [held[place] for place in store.take(names, found)] == names[:found]
        if dice.random() < 0.3:
            store.end_step()
        assert sorted([*store._places.values(), *store._free]) == list(range(12))
    assert store.used == 12
