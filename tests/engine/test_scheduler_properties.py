"""Whatever comes and goes: no block is lost, no row holds another's tokens, nobody starves, and who came first is done first.

The runner of the tests checks the rows and the blocks of each step; here are the traffic and what must hold between the steps.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.fakes import FakeRunner, make_sequence, play
from tunesmith.engine.scheduler import BATCH_TURN, Limits, Scheduler
from tunesmith.engine.sequence import Sequence
from tunesmith.errors import ContextTooLong, Overloaded

SOFT, NUM_VIRTUAL = 2, 20
"""An adapter with a soft prompt."""
many = settings(derandomize=True, database=None, deadline=None, max_examples=90)
few = settings(many, max_examples=40)


@dataclass(frozen=True)
class Asked:
    prefix: int
    num_prefix: int
    tail: int
    max_tokens: int
    adapter: int | None
    tenant: bytes | None
    is_batch: bool
    prompt_logprobs: bool

    def sequence(self, id: int) -> Sequence:
        return make_sequence(
            id, [1_000 * (1 + self.prefix)] * self.num_prefix + [100 + id] * self.tail, self.max_tokens, end=-1,
            adapter=self.adapter, root=None if self.tenant is None else b"%d %s" % (self.adapter or 0, self.tenant),
            num_virtual=NUM_VIRTUAL if self.adapter == SOFT else 0, is_batch=self.is_batch, prompt_logprobs=self.prompt_logprobs,
        )


asked = st.builds(
    Asked, prefix=st.integers(0, 1), num_prefix=st.sampled_from([0, 15, 16, 70, 130]), tail=st.integers(1, 30),
    max_tokens=st.integers(1, 40), adapter=st.sampled_from([None, 1, SOFT]), tenant=st.sampled_from([b"x", b"x", b"y", None]),
    is_batch=st.booleans(), prompt_logprobs=st.integers(0, 9).map(lambda number: number == 0),
)
event = st.one_of(
    asked, asked, st.integers(1, 6),
    st.tuples(st.sampled_from(["abort", "error"]), st.integers(0, 30)),
)
"""A sequence comes; so many steps are computed; one of those that came is ended."""
limits = st.builds(
    Limits, max_sequences=st.integers(1, 5), max_cache_tokens=st.sampled_from([256, 512, 1024]), max_waiting=st.just(6),
    max_prefill_rows=st.integers(1, 4), max_prefill_tokens=st.integers(16, 128), max_chunk=st.sampled_from([7, 16, 33, 64]),
    num_blocks=st.sampled_from([0, 5, 40]),
)


@dataclass
class World:
    limits: Limits
    made: list[Sequence] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduler, self.runner = Scheduler(self.limits), FakeRunner(self.limits)
        self.runner.adapters.virtual[SOFT] = NUM_VIRTUAL
        self.decode_waits: list[bool] = []
        """For each step: was there a sequence to decode, of which the step computed nothing?"""
        self.runner.before_step = self.note

    def note(self) -> None:
        self.decode_waits.append(False)

    def add(self, sequence: Sequence) -> None:
        try:
            self.scheduler.add(sequence)
        except (Overloaded, ContextTooLong) as error:
            sequence.finish("error", error)
        self.made.append(sequence)

    def step(self) -> bool:
        """One step; False when there was nothing to do."""
        before = len(self.runner.steps)
        past_prompt = [s for s in self.scheduler.running if not s.is_prefill]
        play(self.scheduler, self.runner, steps=1)
        if len(self.runner.steps) == before:
            assert not self.scheduler.running
            assert not len(self.scheduler.waiting)
            return False
        computed = {work.sequence for work in self.runner.steps[-1]}
        self.decode_waits[-1] = any(s not in computed and not s.num_preemptions for s in past_prompt)
        return True

    def end(self, number: int, reason: str) -> None:
        if not self.made:
            return
        sequence = self.made[number % len(self.made)]
        if not sequence.is_finished:
            sequence.finish(reason)
            self.scheduler.remove(sequence)

    def check_blocks(self) -> None:
        blocks = self.scheduler.prefixes.blocks
        assert sorted([*blocks._places.values(), *blocks._free]) == list(range(self.limits.num_blocks))


@many
@given(limits, st.lists(event, max_size=25))
def test_whatever_comes_and_goes(limits: Limits, events: list[object]) -> None:
    world = World(limits)
    for number, each in enumerate(events):
        if isinstance(each, Asked):
            world.add(each.sequence(number))
        elif isinstance(each, int):
            for _ in range(each):
                world.step()
        else:
            world.end(each[1], each[0])
        world.check_blocks()
    bound = 2 * sum(
        (1 + s.num_preemptions + len(world.made)) * (s.sampling.max_tokens + len(s.tokens) // min(16, limits.max_chunk) + 2)
        for s in world.made
    )
    while world.step():
        assert len(world.runner.steps) < bound, "somebody waits for ever"
    world.check_blocks()
    assert not world.scheduler.prefixes._awaited
    assert not world.scheduler.prefixes.computing
    assert all(sequence.is_finished and sequence.slot is None for sequence in world.made)
    for s in world.made:
        if s.finish_reason == "length":
            last = s.tokens[s.num_prompt_tokens - 1]
            assert s.tokens[s.num_prompt_tokens :] == list(range(last + 1, last + 1 + s.num_completion_tokens))
            assert s.num_completion_tokens == s.sampling.max_tokens or len(s.tokens) >= limits.max_cache_tokens
    for step in world.runner.steps:
        if any(work.count > 1 for work in step):
            assert len(step) <= limits.max_prefill_rows
            assert len(step) == 1 or len(step) * max(work.count for work in step) <= limits.max_prefill_tokens
        assert max(work.count for work in step) <= limits.max_chunk
    assert not any(first and second for first, second in pairwise(world.decode_waits)), "decode lost its turn"


alike = st.builds(
    Asked, prefix=st.just(0), num_prefix=st.just(0), tail=st.sampled_from([1, 20, 50]), max_tokens=st.sampled_from([1, 4, 20]),
    adapter=st.none(), tenant=st.none(), is_batch=st.booleans(), prompt_logprobs=st.just(False),
)


@few
@given(st.lists(st.one_of(alike, alike, st.integers(1, 4)), min_size=5, max_size=30), st.sampled_from([1, 2, 4]))
def test_of_two_alike_the_one_that_came_first_is_done_first(events: list[object], max_sequences: int) -> None:
    world = World(Limits(max_sequences=max_sequences, max_prefill_rows=2, max_prefill_tokens=64, max_chunk=16))
    done: dict[Sequence, int] = {}
    kind: dict[Sequence, object] = {}

    def step() -> bool:
        more = world.step()
        for sequence in world.made:
            if sequence.is_finished:
                done.setdefault(sequence, len(world.runner.steps))
        return more

    for number, each in enumerate(events):
        if isinstance(each, Asked):
            world.add(each.sequence(number))
            kind[world.made[-1]] = each
        else:
            for _ in range(each):
                step()
    while step():
        pass
    for earlier, later in ((a, b) for a in world.made for b in world.made if a.id < b.id and kind[a] == kind[b]):
        assert done[earlier] <= done[later]


@pytest.mark.parametrize(("max_cache_tokens", "max_prefill_rows"), [(256, 4), (4_096, 4), (4_096, 1)])
def test_nobody_starves_beneath_endless_interactive_requests(max_cache_tokens: int, max_prefill_rows: int) -> None:
    """Interactive ones always wait. A batch one, and each of them, is done within a bound that does not grow with the stream."""
    world = World(Limits(
        max_sequences=4, max_cache_tokens=max_cache_tokens, max_chunk=16, max_prefill_rows=max_prefill_rows,
        max_prefill_tokens=64, num_blocks=8,
    ))
    came: dict[Sequence, int] = {}
    waited: list[int] = []
    service = 2 * (60 // 16 + 1 + 20)
    """Steps of the longest when it runs alone, with another's step between any two."""
    for now in range(600):
        if now % 100 == 0:
            world.add(make_sequence(len(world.made), [len(world.made)] * 40, 20, end=-1, root=b"r", is_batch=True))
            came[world.made[-1]] = now
        while world.scheduler.waiting.count("interactive") < 3:
            world.add(make_sequence(len(world.made), [len(world.made)] * (1 + now * 7 % 60), 1 + now * 5 % 20, end=-1, root=b"r"))
            came[world.made[-1]] = now
        world.step()
        waited += [now - came.pop(sequence) for sequence in list(came) if sequence.is_finished]
    waited += [600 - now for now in came.values()]
    assert max(waited) <= BATCH_TURN * service


def test_a_batch_request_is_not_preempted_again_and_again() -> None:
    """Each interactive one outgrows what two rows may have, before the batch one is done."""
    world = World(Limits(max_sequences=2, max_cache_tokens=128))
    world.add(make_sequence(0, [100] * 10, 40, end=-1, is_batch=True))
    while not world.made[0].is_finished:
        if not world.scheduler.waiting.count("interactive"):
            world.add(make_sequence(len(world.made), [200] * 60, 10, end=-1))
        world.step()
        assert len(world.runner.steps) < 200
    assert world.made[0].num_preemptions == 1


def test_a_long_batch_prompt_is_computed_beneath_endless_interactive_prompts() -> None:
    world = World(Limits(max_sequences=4, max_chunk=16, max_prefill_rows=1))
    world.add(make_sequence(0, [100] * 160, 1, is_batch=True))
    while not world.made[0].is_finished:
        while world.scheduler.waiting.count("interactive") < 3:
            world.add(make_sequence(len(world.made), [200] * 16, 1))
        world.step()
        assert len(world.runner.steps) <= 10 * BATCH_TURN


def test_one_of_eight_admissions_is_a_batch_requests() -> None:
    scheduler = Scheduler(Limits(max_sequences=1))
    runner = FakeRunner(scheduler.limits)
    for number in range(20):
        scheduler.add(make_sequence(number, [20], 1))
        scheduler.add(make_sequence(100 + number, [20], 1, is_batch=True))
    play(scheduler, runner)
    order = ["b" if step[0].sequence.priority == "batch" else "i" for step in runner.steps]
    assert "".join(order) == "iiiiiiib" * 2 + "iiiiii" + "b" * 18


def test_batch_requests_are_preempted_before_interactive_ones_that_came_later() -> None:
    limits = Limits(max_sequences=2, max_cache_tokens=64)
    world = World(limits)
    world.add(make_sequence(1, [100] * 20, 20, end=-1, is_batch=True))
    world.add(make_sequence(2, [200] * 20, 20, end=-1))
    while world.step():
        pass
    assert [sequence.num_preemptions for sequence in world.made] == [1, 0]


def test_an_interactive_prompt_is_computed_before_a_long_batch_one() -> None:
    world = World(Limits(max_chunk=16, max_prefill_rows=1))
    world.add(make_sequence(1, [100] * 300, 1, is_batch=True))
    world.step()
    world.add(make_sequence(2, [200] * 32, 1))
    world.step()
    world.step()
    assert world.made[1].is_finished


def test_a_full_queue_of_batch_requests_leaves_room_for_interactive_ones() -> None:
    scheduler = Scheduler(Limits(max_sequences=1, max_waiting=2))
    for number in range(3):
        scheduler.add(make_sequence(number, [1], is_batch=True))
    with pytest.raises(Overloaded):
        scheduler.add(make_sequence(4, [1], is_batch=True))
    scheduler.add(make_sequence(5, [1]))


def test_a_sequence_that_outgrows_the_cache_ends_there_and_the_others_go_on() -> None:
    world = World(Limits(max_cache_tokens=64))
    world.add(make_sequence(1, [100] * 10, 1_000, end=-1))
    world.add(make_sequence(2, [200] * 10, 5, end=-1))
    while world.step():
        pass
    assert [len(sequence.tokens) for sequence in world.made] == [64, 15]
    assert [sequence.finish_reason for sequence in world.made] == ["length"] * 2
