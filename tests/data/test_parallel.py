"""A function over many items in several processes is the function over the items."""

import os

import pytest

from tunesmith.data import parallel


@pytest.mark.parametrize("count", [0, 5, 6, 7, 50])
def test_results_come_in_order_and_few_items_stay_here(monkeypatch, count):
    monkeypatch.setattr(parallel, "SERIAL", 6)
    monkeypatch.setattr(parallel, "CHUNK", 4)
    found = list(parallel.mapped(lambda n: (n * n, os.getpid()), range(count), processes=2))
    assert [square for square, _ in found] == [n * n for n in range(count)]
    assert {pid for _, pid in found[:6]} <= {os.getpid()}
    assert os.getpid() not in {pid for _, pid in found[6:]}


def test_no_more_items_are_taken_than_are_under_way(monkeypatch):
    monkeypatch.setattr(parallel, "SERIAL", 2)
    monkeypatch.setattr(parallel, "CHUNK", 2)
    taken = []
    results = parallel.mapped(str, (taken.append(n) or n for n in range(1000)), processes=2)
    for _ in range(5):
        next(results)
    assert len(taken) <= 2 + 2 * (parallel.AHEAD * 2 + 1)
    results.close()


def test_an_error_of_an_item_is_the_caller_s(monkeypatch):
    monkeypatch.setattr(parallel, "SERIAL", 1)
    with pytest.raises(ZeroDivisionError):
        list(parallel.mapped(lambda n: 1 / n, [1, 2, 0], processes=2))
