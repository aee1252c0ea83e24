"""The thread: a request that fails fails alone, an abort or a deadline ends at once, an adapter goes when nobody uses it."""

import queue
import threading

import pytest

from engine.fakes import FakeRunner, make_sequence
from tunesmith.engine.core import Core
from tunesmith.engine.scheduler import Limits
from tunesmith.engine.sequence import Output, Sequence, TokenLogprob


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner(Limits())


@pytest.fixture
def core(runner: FakeRunner):
    core = Core(runner)
    core.start()
    yield core
    core.stop()


def ask(core: Core, *sequences: Sequence) -> dict[int, Output]:
    """Last output of each, by id."""
    done: queue.Queue[tuple[int, Output]] = queue.Queue()
    for sequence in sequences:
        def sink(output: Output, id: int = sequence.id) -> None:
            if output.finish_reason is not None:
                done.put((id, output))
        sequence.sink = sink
        core.add(sequence)
    return dict(done.get(timeout=60) for _ in sequences)


def test_sequences_are_answered_together(core: Core) -> None:
    answers = ask(core, *(make_sequence(number, [20 + number], 3) for number in range(8)))
    assert all(answers[number].tokens == [21 + number, 22 + number, 23 + number] for number in range(8))


def test_one_that_breaks_the_step_fails_alone(core: Core, runner: FakeRunner) -> None:
    runner.breaks_on = {3}
    answers = ask(core, *(make_sequence(number, [20], 3) for number in range(6)))
    assert answers[3].finish_reason == "error"
    assert "broken" in str(answers[3].error)
    assert all(answers[number].tokens == [21, 22, 23] for number in range(6) if number != 3)
    assert ask(core, make_sequence(7, [20], 1))[7].tokens == [21]


def test_one_without_valid_probabilities_fails_alone(core: Core, runner: FakeRunner) -> None:
    runner.nan_on = {1}
    answers = ask(core, make_sequence(1, [20]), make_sequence(2, [20]))
    assert answers[1].error is not None
    assert answers[2].finish_reason == "length"


def test_an_aborted_sequence_leaves_and_the_others_go_on(core: Core) -> None:
    endless, other = make_sequence(1, [20], 9_000, end=-1), make_sequence(2, [20], 2)
    core.add(endless)
    assert ask(core, other)[2].finish_reason == "length"
    core.abort(endless)
    assert ask(core, make_sequence(3, [20], 1))[3].tokens == [21]
    assert endless.finish_reason == "abort"
    assert core.stats().running == 0


def test_a_dropped_adapter_is_freed_after_its_last_sequence(core: Core, runner: FakeRunner) -> None:
    busy = make_sequence(1, [20], 9_000, adapter=5, end=-1)
    core.add(busy)
    core.drop_adapter(5)
    ask(core, make_sequence(2, [20], 2))
    assert runner.adapters.removed == []
    core.abort(busy)
    ask(core, make_sequence(3, [20], 2))
    assert runner.adapters.removed == [5]


def test_no_tokens_wanted_means_the_prompt_only(core: Core, runner: FakeRunner) -> None:
    answer = ask(core, make_sequence(1, [20, 21, 22], 0))[1]
    assert (answer.tokens, answer.finish_reason) == ([], "length")
    assert len(runner.steps) == 1


def test_streamed_text_comes_in_pieces_and_is_the_same(core: Core) -> None:
    pieces: list[str] = []
    done: queue.Queue[None] = queue.Queue()

    def sink(output: Output) -> None:
        pieces.append(output.text)
        if output.finish_reason:
            done.put(None)

    core.add(make_sequence(1, [0], 5, sink=sink, is_streamed=True))
    done.get(timeout=60)
    whole = ask(core, make_sequence(2, [0], 5))[2].text
    assert len(pieces) == 5
    assert "".join(pieces) == whole == "abcde"


def test_a_stop_string_ends_it(core: Core) -> None:
    answer = ask(core, make_sequence(1, [0], 20, stop=("cd",), end=-1))[1]
    assert (answer.text, answer.finish_reason, answer.tokens) == ("ab", "stop", [1, 2, 3, 4])


def test_a_fault_of_the_thread_itself_is_told_so_that_nobody_waits_for_ever(
    runner: FakeRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    died: queue.Queue[None] = queue.Queue()
    core = Core(runner, on_death=lambda: died.put(None))
    core.start()

    def sink(output: Output) -> None:
        raise OSError("the loop is gone")

    core.add(make_sequence(1, [20], 1, sink=sink))
    died.get(timeout=60)
    assert "the loop is gone" in capsys.readouterr().err


def settled(core: Core) -> None:
    """Returns when the orders so far have been taken."""
    core.set_threads(1).result(timeout=60)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_deadline_ends_what_runs_and_what_waits() -> None:
    clock, runner = Clock(), FakeRunner(Limits(max_sequences=1))
    core = Core(runner, clock=clock)
    core.start()
    ended: queue.Queue[Output] = queue.Queue()
    endless = [make_sequence(number, [20], 9_000, end=-1, deadline=5.0 + number, sink=ended.put) for number in range(2)]
    for sequence in endless:
        core.add(sequence)
    settled(core)
    clock.now = 5.0
    first = ended.get(timeout=60)
    assert (first.error.code, first.error.status) == ("deadline_exceeded", 408)
    clock.now = 6.0
    assert ended.get(timeout=60).error.code == "deadline_exceeded"
    assert [sequence.slot for sequence in endless] == [None, None]
    assert ask(core, make_sequence(3, [20], 1, deadline=7.0))[3].tokens == [21]
    assert core.stats().finished == {"stop": 0, "length": 1, "abort": 0, "error": 2}
    core.stop()


def test_an_abort_frees_the_row_before_the_next_step(runner: FakeRunner) -> None:
    core = Core(runner)
    gone, stays = make_sequence(1, [20], 9_000, end=-1), make_sequence(2, [20], 20, end=-1)
    aborted_at: list[int] = []

    def abort_once() -> None:
        if len(runner.steps) == 5:
            core.abort(gone)
            aborted_at.append(len(runner.steps))

    runner.before_step = abort_once
    core.add(gone)
    core.start()
    ask(core, stays)
    core.stop()
    with_it = [number for number, step in enumerate(runner.steps) if any(work.sequence is gone for work in step)]
    assert with_it[-1] == aborted_at[0]


def test_beyond_the_queue_a_sequence_is_turned_away(runner: FakeRunner) -> None:
    core = Core(FakeRunner(Limits(max_sequences=2, max_waiting=3)))
    ended: list[Output] = []
    for number in range(7):
        core.add(make_sequence(number, [20], 1, sink=ended.append))
    core.add(make_sequence(8, [20], 1, sink=ended.append, is_batch=True))
    core.start()
    core.drain().result(timeout=60)
    core.stop()
    assert [output.error.code for output in ended if output.error] == ["engine_overloaded"] * 2
    assert ended[0].error.status == 429
    assert (len(ended), core.stats().refused, core.stats().finished["length"]) == (8, 2, 6)


@pytest.mark.parametrize(("prompt", "code"), [([], "invalid_request"), ([20] * 65, "context_length_exceeded")])
def test_what_can_never_be_computed_fails_alone(prompt: list[int], code: str) -> None:
    core = Core(FakeRunner(Limits(max_cache_tokens=64)))
    core.start()
    answers = ask(core, make_sequence(1, prompt), make_sequence(2, [20] * 64, 5), make_sequence(3, [20], 100, end=-1))
    core.stop()
    assert answers[1].error.code == code
    assert answers[2].tokens == [21]
    assert (len(answers[3].tokens), answers[3].finish_reason) == (63, "length")


def test_while_it_drains_what_runs_ends_and_nobody_new_comes_in(core: Core) -> None:
    running = make_sequence(1, [20], 200, end=-1)
    last: queue.Queue[Output] = queue.Queue()
    running.sink = last.put
    core.add(running)
    drained = core.drain()
    late = ask(core, make_sequence(2, [20], 1))[2]
    assert (late.error.code, late.error.status) == ("engine_draining", 503)
    drained.result(timeout=60)
    assert len(last.get_nowait().tokens) == 200
    core.drain().result(timeout=60)


def test_the_number_of_threads_is_set_in_the_thread_that_computes(runner: FakeRunner) -> None:
    calls: list[tuple[int, str]] = []
    core = Core(runner, set_threads=lambda number: calls.append((number, threading.current_thread().name)))
    core.start()
    core.set_threads(3).result(timeout=60)
    core.stop()
    assert calls == [(3, "engine-core")]


def test_a_broken_step_makes_no_copy_twice_and_reports_no_prompt_twice() -> None:
    class Reports(FakeRunner):
        def run(self, step, running):
            for sequence, start, count in step.works:
                if sequence.sampling.prompt_logprobs and start < sequence.num_prompt_tokens:
                    sequence.prompt_logprobs += [TokenLogprob(token, -1.0) for token in sequence.tokens[start : start + count]]
            return super().run(step, running)

    runner = Reports(Limits(max_chunk=16, num_blocks=16))
    runner.breaks_on = {2}
    core = Core(runner)
    prompt = list(range(100, 140))
    first = ask_all(core, make_sequence(1, prompt, 1, root=b"a"))
    core.start()
    assert first.get(timeout=60).tokens == [140]
    answers = ask(core, make_sequence(2, prompt, 1, root=b"a"), make_sequence(3, prompt, 1, prompt_logprobs=True))
    assert answers[2].error.code == "engine_failed"
    assert [each.token for each in answers[3].logprobs] == prompt
    assert len([copy for copy in runner.copies if type(copy).__name__ == "Restore"]) == 1
    core.stop()


def ask_all(core: Core, sequence: Sequence) -> "queue.Queue[Output]":
    """Its outputs, before the core has started too."""
    outputs: queue.Queue[Output] = queue.Queue()
    sequence.sink = outputs.put
    core.add(sequence)
    return outputs


def test_when_copies_break_what_runs_fails_and_nothing_stored_is_believed() -> None:
    runner = FakeRunner(Limits(num_blocks=16))
    core = Core(runner)
    core.start()
    prompt = list(range(100, 180))
    assert ask(core, make_sequence(1, prompt, 1, root=b"a"))[1].num_cached_prompt == 0
    assert ask(core, make_sequence(2, prompt, 1, root=b"a"))[2].num_cached_prompt == 64
    runner.breaks_on_copies = True
    assert ask(core, make_sequence(3, prompt, 1, root=b"a"))[3].error.code == "engine_failed"
    runner.breaks_on_copies = False
    assert ask(core, make_sequence(4, prompt, 1, root=b"a"))[4].num_cached_prompt == 0
    assert ask(core, make_sequence(5, prompt, 1, root=b"a"))[5].num_cached_prompt == 64
    core.stop()


def test_it_tells_what_it_did(runner: FakeRunner) -> None:
    core = Core(FakeRunner(Limits(num_blocks=8)))
    core.start()
    ask(core, make_sequence(1, [100] * 40, 3, root=b"a"))
    ask(core, make_sequence(2, [100] * 40, 1, root=b"a"))
    stats = core.stats()
    assert (stats.prompt_tokens, stats.cached_prompt_tokens, stats.generated_tokens) == (80, 32, 4)
    assert (stats.prefix_queried_tokens, stats.prefix_hit_tokens) == (64, 32)
    assert (stats.blocks_used, stats.blocks_total, stats.rows) == (2, 8, 32)
    assert (stats.steps, stats.running, stats.waiting, stats.waiting_batch, stats.preemptions) == (4, 0, 0, 0, 0)
    core.stop()


def test_an_embedding_is_done_with_its_prompt(core: Core) -> None:
    answer = ask(core, make_sequence(1, [20, 21], 5, wants_embedding=True))[1]
    assert (answer.tokens, answer.finish_reason) == ([], "length")
