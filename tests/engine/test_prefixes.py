"""What was computed once is begun with; those that need the same wait for the first; nobody meets another's blocks. No torch."""

import pytest

from engine.fakes import FakeRunner, make_sequence, play
from tunesmith.engine.blocks import BLOCK
from tunesmith.engine.prefixes import Restore, Save, SoftPrompt
from tunesmith.engine.scheduler import Limits, Scheduler
from tunesmith.engine.sequence import Sequence

SYSTEM = list(range(1_000, 1_500))
"""500 tokens that all begin with: 31 whole blocks."""


def world(**limits: int) -> tuple[Scheduler, FakeRunner]:
    whole = Limits(**({"num_blocks": 256} | limits))
    return Scheduler(whole), FakeRunner(whole)


def run(scheduler: Scheduler, runner: FakeRunner, *sequences: Sequence) -> None:
    for sequence in sequences:
        scheduler.add(sequence)
    play(scheduler, runner)
    assert all(sequence.is_finished for sequence in sequences)


def computed(runner: FakeRunner, sequence: Sequence) -> int:
    return sum(work.count for step in runner.steps for work in step if work.sequence is sequence)


def test_a_prompt_that_was_computed_before_begins_with_its_whole_blocks() -> None:
    scheduler, runner = world()
    first, again, longer = (make_sequence(n, SYSTEM[: 64 + 10 * (n == 3)], 1, root=b"a") for n in (1, 2, 3))
    for sequence in (first, again, longer):
        run(scheduler, runner, sequence)
    assert [sequence.num_cached_prompt for sequence in (first, again, longer)] == [0, 48, 64]
    assert [computed(runner, sequence) for sequence in (first, again, longer)] == [64, 16, 10]


def test_a_conversation_goes_on_from_its_last_answer() -> None:
    scheduler, runner = world()
    first = make_sequence(1, SYSTEM[:40], 30, root=b"a", end=-1)
    run(scheduler, runner, first)
    second = make_sequence(2, [*first.tokens, 7, 7, 7], 1, root=b"a")
    run(scheduler, runner, second)
    assert second.num_cached_prompt == 69 // BLOCK * BLOCK


def test_eight_that_share_a_prefix_compute_it_once() -> None:
    scheduler, runner = world()
    eight = [make_sequence(n, [*SYSTEM, 50 + n, 60, 70], 4, root=b"a", end=-1) for n in range(8)]
    run(scheduler, runner, *eight)
    prefill = [computed(runner, sequence) - 3 for sequence in eight]
    assert prefill == [503] + [503 - 31 * BLOCK] * 7
    assert sum(prefill) * 4 < 8 * 503
    through = [n for n, step in enumerate(runner.steps) for work in step if work.start + work.count == 503]
    assert through == [0] + [2] * 7


def test_others_pass_those_that_wait_for_blocks() -> None:
    scheduler, runner = world(max_sequences=2, max_chunk=100)
    first, waits = (make_sequence(n, [*SYSTEM, n], 1, root=b"a") for n in (1, 2))
    other = make_sequence(3, [5, 6], 1, root=b"a")
    run(scheduler, runner, first, waits, other)
    assert other in [work.sequence for work in runner.steps[0]] + [work.sequence for work in runner.steps[1]]
    assert computed(runner, waits) == 501 - 31 * BLOCK


def test_when_the_first_goes_away_the_next_computes_the_rest() -> None:
    scheduler, runner = world(max_chunk=160)
    gone, next_, last = (make_sequence(n, [*SYSTEM, n], 1, root=b"a") for n in (1, 2, 3))
    for sequence in (gone, next_, last):
        scheduler.add(sequence)
    play(scheduler, runner, steps=2)
    gone.finish("abort")
    scheduler.remove(gone)
    play(scheduler, runner)
    assert computed(runner, next_) == 501 - 320
    assert computed(runner, last) == 501 - 480


def test_a_prefix_that_ends_with_a_single_token_frees_those_that_wait() -> None:
    scheduler, runner = world(max_chunk=64)
    run(scheduler, runner, *(make_sequence(n, [*SYSTEM[:128], 3], 1, root=b"a") for n in range(3)))


@pytest.mark.parametrize(("root", "keywords"), [
    (b"b", {}), (None, {}), (b"a", {"prompt_logprobs": True}), (b"a", {"wants_embedding": True}),
])
def test_who_may_not_or_cannot_use_blocks_computes_all(root: bytes | None, keywords: dict[str, bool]) -> None:
    scheduler, runner = world()
    run(scheduler, runner, make_sequence(1, SYSTEM, 1, root=b"a"))
    second = make_sequence(2, SYSTEM, 0, root=root, **keywords)
    scheduler.add(second)
    play(scheduler, runner, steps=1)
    assert second.num_cached_prompt == 0
    assert computed(runner, second) == 500


def test_without_a_store_nothing_is_saved_and_nobody_waits() -> None:
    scheduler, runner = world(num_blocks=0)
    run(scheduler, runner, *(make_sequence(n, SYSTEM, 1, root=b"a") for n in range(4)))
    assert not [copy for copy in runner.copies if isinstance(copy, Save | Restore)]
    assert len(runner.steps) == 1


def test_what_failed_is_not_saved() -> None:
    scheduler, runner = world()
    broken = make_sequence(1, SYSTEM[:40], 50, root=b"a", end=-1)
    scheduler.add(broken)
    play(scheduler, runner, steps=30)
    broken.finish("error")
    scheduler.remove(broken)
    play(scheduler, runner)
    assert scheduler.prefixes.blocks.used == 2


def test_a_store_that_is_too_small_does_not_make_each_wait_for_the_one_before() -> None:
    scheduler, runner = world(num_blocks=8)
    four = [make_sequence(n, SYSTEM, 1, root=b"a") for n in range(4)]
    run(scheduler, runner, *four)
    assert [len(step) for step in runner.steps] == [1, 3]


def test_nobody_waits_for_blocks_that_went_after_they_were_computed() -> None:
    scheduler, runner = world(num_blocks=31)
    first, other, same = (make_sequence(n, [n % 2, *SYSTEM], 1_000, root=b"a", end=-1) for n in (1, 2, 3))
    for sequence in (first, other, same):
        scheduler.add(sequence)
        play(scheduler, runner, steps=2)
    assert same.slot is not None


def test_nobody_waits_for_one_that_came_later() -> None:
    scheduler, runner = world(max_chunk=16)
    later, earlier = (make_sequence(n, SYSTEM, 1, root=b"a") for n in (2, 1))
    for sequence in (later, earlier):
        scheduler.add(sequence)
        play(scheduler, runner, steps=1)
    assert earlier.slot is not None


def test_a_soft_prompt_is_copied_and_later_comes_with_the_blocks() -> None:
    scheduler, runner = world()
    runner.adapters.virtual[7] = 20
    first, again, short = (
        make_sequence(n, SYSTEM[: 5 if n == 3 else 50], 1, root=b"soft", adapter=7, num_virtual=20) for n in (1, 2, 3)
    )
    for sequence in (first, again, short):
        run(scheduler, runner, sequence)
    begun = [copy for copy in runner.copies if isinstance(copy, Restore | SoftPrompt)]
    assert [type(copy) for copy in begun] == [SoftPrompt, Restore, SoftPrompt]
    assert [computed(runner, sequence) for sequence in (first, again, short)] == [50, 70 - 64, 5]
    assert [sequence.num_cached_prompt for sequence in (first, again, short)] == [0, 44, 0]


def test_one_that_was_preempted_resumes_from_what_was_saved() -> None:
    scheduler, runner = world(max_sequences=2, max_cache_tokens=256)
    pair = [make_sequence(n, [n * 100] * 100, 60, root=b"a", end=-1) for n in (1, 2)]
    run(scheduler, runner, *pair)
    assert scheduler.num_preemptions == 1
    assert pair[1].num_preemptions == 1
    assert pair[1].num_cached_prompt == 0
    assert computed(runner, pair[1]) < 160 + BLOCK
