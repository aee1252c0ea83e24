"""The thread: a request that fails fails alone, an abort ends at once, an adapter goes when nobody uses it."""

import queue

import pytest

from engine.fakes import FakeRunner, make_sequence
from tunesmith.engine.core import Core
from tunesmith.engine.scheduler import Limits
from tunesmith.engine.sequence import Output, Sequence


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
    assert core.load().running == 0


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
