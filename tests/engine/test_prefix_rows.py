"""Keys and values that the prefix cache gives are those that were computed, whatever became of the row meanwhile."""

import random
from dataclasses import replace

import pytest

from engine.engines import make_prompts
from engine.fakes import make_sequence, play
from tunesmith.engine.build import build_runner
from tunesmith.engine.scheduler import Limits, Scheduler
from tunesmith.engine.sequence import Sequence
from tunesmith.models.catalog import Base


def greedy(id: int, prompt: list[int], count: int, root: bytes | None) -> Sequence:
    sequence = make_sequence(id, prompt, count, end=-1, root=root)
    sequence.sampling = replace(sequence.sampling, temperature=0.0)
    return sequence


def test_what_a_long_sequence_left_is_whole_though_the_cache_shrinks_as_it_is_saved(small_base: Base) -> None:
    """Its last blocks are saved in the step that gives room to more and shorter rows."""
    runner = build_runner(small_base, "none")
    scheduler = Scheduler(runner.limits)
    (prompt,), shorts = make_prompts((170,), 4096), make_prompts((5,) * 7, 4096, seed=9)
    first = greedy(1, prompt, 24, b"r")
    scheduler.add(first)
    play(scheduler, runner, steps=24)
    assert first.is_finished
    for id, short in enumerate(shorts, start=2):
        scheduler.add(greedy(id, short, 1, b"r"))
    play(scheduler, runner)
    found, fresh = (greedy(id, [*first.tokens, 7], 16, root) for id, root in ((20, b"r"), (21, None)))
    for sequence in (found, fresh):
        scheduler.add(sequence)
        play(scheduler, runner)
    assert found.num_cached_prompt == 192
    assert found.tokens == fresh.tokens


@pytest.mark.parametrize(("num_blocks", "max_cache_tokens"), [(500, 1 << 17), (12, 1 << 17), (500, 512), (0, 512)])
def test_hits_evictions_and_preemptions_change_no_answer(small_base: Base, num_blocks: int, max_cache_tokens: int) -> None:
    runner, dice = build_runner(small_base, "none"), random.Random(2)
    prefixes = make_prompts((40, 70, 100), 4096)
    tails = make_prompts(tuple(dice.randrange(1, 20) for _ in range(24)), 4096, seed=6)
    asked = [(dice.choice(prefixes) + tail, dice.randrange(1, 40)) for tail in tails]

    def answers(limits: Limits, root: bytes | None) -> tuple[list[list[int]], Scheduler]:
        scheduler = Scheduler(limits)
        made = [greedy(id, prompt, count, root) for id, (prompt, count) in enumerate(asked)]
        for sequence in made:
            scheduler.add(sequence)
            play(scheduler, runner, steps=1)
        play(scheduler, runner)
        return [sequence.tokens for sequence in made], scheduler

    expected, _ = answers(replace(runner.limits, num_blocks=0), None)
    got, scheduler = answers(replace(runner.limits, num_blocks=num_blocks, max_cache_tokens=max_cache_tokens), b"r")
    assert got == expected
    assert (scheduler.num_preemptions > 0) == (max_cache_tokens == 512)
    assert (scheduler.num_cached_prompt_tokens > 0) == (num_blocks > 0)
