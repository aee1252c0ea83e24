"""Whose turn it is: the preempted by age, then interactive before batch, which has one turn of eight."""

from engine.fakes import make_sequence
from tunesmith.engine.waiting import Waiting


def ids(waiting: Waiting) -> list[int]:
    return [sequence.id for sequence in waiting]


def test_the_order_of_turns() -> None:
    waiting = Waiting()
    for id, is_batch in ((1, True), (2, False), (3, False), (4, True)):
        waiting.add(make_sequence(id, [1], is_batch=is_batch))
    for id in (9, 5, 7):
        waiting.put_back(make_sequence(id, [1], is_batch=id == 5))
    assert ids(waiting) == [5, 7, 9, 2, 3, 1, 4]
    assert (len(waiting), waiting.count("batch"), waiting.count("interactive")) == (7, 2, 2)


def test_after_seven_others_it_is_a_batch_sequences_turn() -> None:
    waiting = Waiting()
    waiting.add(make_sequence(0, [1], is_batch=True))
    turns = []
    for id in range(1, 12):
        waiting.add(make_sequence(id, [1]))
        turns.append(next(iter(waiting)))
        waiting.admit(turns[-1])
    assert [sequence.id for sequence in turns] == [1, 2, 3, 4, 5, 6, 7, 0, 8, 9, 10]


def test_a_turn_is_not_saved_up_while_no_batch_sequence_waits() -> None:
    waiting = Waiting()
    for id in range(10):
        waiting.add(make_sequence(id, [1]))
        waiting.admit(next(iter(waiting)))
    waiting.add(make_sequence(10, [1], is_batch=True))
    waiting.add(make_sequence(11, [1]))
    assert ids(waiting) == [11, 10]


def test_whoever_waits_can_be_taken_out_and_nobody_else_is() -> None:
    waiting, there, preempted = Waiting(), make_sequence(1, [1]), make_sequence(2, [1])
    waiting.add(there)
    waiting.put_back(preempted)
    for sequence in (make_sequence(1, [1]), preempted, there):
        waiting.remove(sequence)
    assert len(waiting) == 0
