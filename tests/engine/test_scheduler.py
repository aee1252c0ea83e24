"""Every sequence is computed, in order, without gaps, within the limits, whatever comes and goes. No torch is needed for that."""

import subprocess
import sys

from engine.fakes import END, FakeRunner, make_sequence, play
from tunesmith.engine.scheduler import Limits, Scheduler, Work


def test_a_long_prompt_is_computed_in_chunks_and_does_not_stop_the_others() -> None:
    limits = Limits(max_chunk=8)
    scheduler, runner = Scheduler(limits), FakeRunner(limits)
    scheduler.add(make_sequence(1, [1], 20))
    play(scheduler, runner, steps=2)
    scheduler.add(make_sequence(2, [50] * 40, 1))
    play(scheduler, runner, steps=10)
    kinds = [step[0].count > 1 for step in runner.steps[2:]]
    assert kinds[:8] == [True, False] * 4


def test_waiting_sequences_are_admitted_in_the_order_in_which_they_came() -> None:
    scheduler = Scheduler(Limits(max_sequences=2))
    first, second, third = (make_sequence(number, [1, 2]) for number in range(3))
    for sequence in (first, second, third):
        scheduler.add(sequence)
    assert {work.sequence.id for work in scheduler.schedule().works} == {0, 1}
    scheduler.remove(first)
    scheduler.schedule()
    assert {sequence.id for sequence in scheduler.running} == {1, 2}


def test_when_the_cache_is_full_the_last_comer_waits_and_is_computed_anew() -> None:
    limits = Limits(max_sequences=4, max_cache_tokens=64)
    scheduler, runner = Scheduler(limits), FakeRunner(limits)
    made = [make_sequence(number, [100 * number] * 12, 30, end=-1) for number in range(4)]
    for sequence in made:
        scheduler.add(sequence)
    play(scheduler, runner)
    assert [sequence.num_completion_tokens for sequence in made] == [30] * 4
    again = [work for step in runner.steps for work in step if work.start == 0]
    assert len(again) > len(made)


def test_a_leaving_sequence_leaves_no_gap() -> None:
    scheduler = Scheduler(Limits())
    made = [make_sequence(number, [1, 2]) for number in range(4)]
    for sequence in made:
        scheduler.add(sequence)
    scheduler.schedule()
    scheduler.remove(made[1])
    assert [sequence.id for sequence in scheduler.running] == [0, 3, 2]
    assert [sequence.slot for sequence in scheduler.running] == [0, 1, 2]
    assert scheduler.schedule().copies == [(3, 1)]
    assert scheduler.schedule().copies == []


def test_a_sequence_that_waits_can_be_taken_out() -> None:
    scheduler = Scheduler(Limits(max_sequences=1))
    first, second = make_sequence(1, [1]), make_sequence(2, [1])
    scheduler.add(first)
    scheduler.add(second)
    scheduler.schedule()
    scheduler.remove(second)
    assert not len(scheduler.waiting)
    scheduler.remove(second)
    assert scheduler.running == [first]


def test_an_end_token_ends_a_sequence_and_is_no_text() -> None:
    outputs = []
    sequence = make_sequence(1, [END - 3], 10, sink=outputs.append)
    scheduler, runner = Scheduler(Limits()), FakeRunner(Limits())
    scheduler.add(sequence)
    play(scheduler, runner)
    assert sequence.finish_reason == "stop"
    assert [(output.text, output.tokens) for output in outputs] == [("gh", [7, 8, 9])]


def test_deciding_needs_no_torch() -> None:
    names = "scheduler", "prefixes", "blocks", "waiting", "sequence", "text"
    program = f"import sys; import {', '.join(f'tunesmith.engine.{name}' for name in names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_work_knows_whether_it_reaches_the_end() -> None:
    sequence = make_sequence(1, [1, 2, 3])
    assert not Work(sequence, 0, 2).is_last
    assert Work(sequence, 2, 1).is_last
