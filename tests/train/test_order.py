from collections import Counter

from tunesmith.train.order import WINDOW_ROWS, epoch_ends, micro_batches, num_steps, plan, thinned

LENGTHS = [10 + (7 * k) % 31 for k in range(50)]


def test_each_row_is_seen_once_an_epoch():
    steps = plan(LENGTHS, batch_size=5, epochs=3, seed=1)
    assert len(steps) == num_steps(50, 5, 3) == 30
    assert Counter(row for step in steps for row in step) == {row: 3 for row in range(50)}


def test_every_step_has_a_full_batch_even_when_rows_do_not_divide():
    steps = plan(LENGTHS[:7], batch_size=4, epochs=2, seed=1)
    assert [len(step) for step in steps] == [4, 4, 4, 4]
    counts = Counter(row for step in steps for row in step)
    assert set(counts) == set(range(7))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_fresh_rows_are_seen_once_and_spread_over_the_epochs():
    num_fresh, epochs = 6, 3
    lengths = LENGTHS[:24] + [20] * (num_fresh * epochs)
    steps = plan(lengths, batch_size=5, epochs=epochs, seed=1, num_fresh=num_fresh)
    assert len(steps) == num_steps(30, 5, epochs)
    counts = Counter(row for step in steps for row in step)
    assert counts == {row: epochs if row < 24 else 1 for row in range(len(lengths))}


def test_the_seed_decides_the_order_and_nothing_else_does():
    first = plan(LENGTHS, batch_size=5, epochs=3, seed=1)
    assert first == plan(LENGTHS, batch_size=5, epochs=3, seed=1)
    assert first != plan(LENGTHS, batch_size=5, epochs=3, seed=2)


def test_rows_of_like_length_meet_and_batches_come_in_no_order_of_length():
    steps = plan(LENGTHS, batch_size=5, epochs=8, seed=3)
    padding = sum(max(LENGTHS[row] for row in step) * len(step) - sum(LENGTHS[row] for row in step) for step in steps)
    assert padding / sum(LENGTHS[row] for step in steps for row in step) < 0.1
    first_window = [max(LENGTHS[row] for row in step) for step in steps[: WINDOW_ROWS // 5]]
    assert first_window != sorted(first_window)


def test_a_run_has_at_least_one_step_and_part_of_an_epoch_is_possible():
    assert num_steps(10, 32, 1) == 1
    assert num_steps(100, 10, 0.5) == 5


def test_micro_batches_cover_the_step():
    assert micro_batches([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]


def test_an_epoch_ends_with_the_step_that_sees_its_last_row():
    assert epoch_ends(12, 4, 6) == [3, 6]
    assert epoch_ends(10, 4, num_steps(10, 4, 3)) == [3, 5, 8]
    assert epoch_ends(3, 8, 2) == [1, 2]
    assert epoch_ends(100, 8, 3) == [3]


def test_of_many_epochs_some_are_taken_and_the_last_ones_all():
    assert thinned([3, 6], most=20, last=3) == {3, 6}
    assert thinned(list(range(1, 61)), most=20, last=3) == {*range(3, 61, 3), 58, 59}
    assert thinned(list(range(1, 22)), most=20, last=1) == {*range(2, 22, 2), 21}
