"""A deadline is told once, to those only that have not finished; those that have are not kept for ever."""

from engine.fakes import make_sequence
from tunesmith.engine.deadlines import MIN_SWEPT, Deadlines


def test_deadlines_pass_in_their_order_and_once() -> None:
    deadlines = Deadlines()
    for id, at in ((1, 30.0), (2, 10.0), (3, None), (4, 20.0)):
        deadlines.add(make_sequence(id, [1], deadline=at))
    assert deadlines.passed(9.9) == []
    assert [sequence.id for sequence in deadlines.passed(20.0)] == [2, 4]
    assert [sequence.id for sequence in deadlines.passed(99.0)] == [1]
    assert deadlines.passed(99.0) == []


def test_what_has_finished_is_not_late_and_is_swept_out() -> None:
    deadlines, stays = Deadlines(), make_sequence(0, [1], deadline=500.0)
    deadlines.add(stays)
    for id in range(1, 1_000):
        done = make_sequence(id, [1], deadline=1_000.0 - id)
        deadlines.add(done)
        done.finish("stop")
    assert len(deadlines) <= MIN_SWEPT + 1
    assert deadlines.passed(2_000.0) == [stays]
