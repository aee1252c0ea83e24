"""Few tokens are computed with one thread, many with all: as was measured, in the thread that computes."""

import threading

import pytest
import torch

from tunesmith.engine import threads
from tunesmith.engine.int8 import int8_weight
from tunesmith.engine.matmul import Plain
from tunesmith.engine.threads import SIZES, Threads, serial_tokens


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("slower_up_to", "found"), [(0, 0), (8, 8), (100, 32), (10_000, SIZES[-1])], ids=["never", "8", "between", "always"]
)
def test_one_thread_is_taken_up_to_where_all_are_faster(monkeypatch, slower_up_to, found):
    def seconds(x, product):
        if torch.get_num_threads() == 1:
            return len(x)
        return 2 * len(x) if len(x) <= slower_up_to else len(x) / 2

    monkeypatch.setattr(threads, "_seconds", seconds)
    assert serial_tokens(64, 2, Plain) == found
    assert torch.get_num_threads() == 2


def test_with_one_thread_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(threads, "_seconds", lambda x, product: pytest.fail("measured"))
    assert serial_tokens(64, 1, Plain) == 0


@pytest.mark.parametrize("make", [Plain, int8_weight], ids=["fp32", "int8"])
def test_it_is_measured_with_what_the_base_computes_with(monkeypatch, make):
    seen = []
    monkeypatch.setattr(threads, "_seconds", lambda x, product: seen.append(product(x)) or 1.0)
    serial_tokens(64, 2, make)
    assert {tuple(each.shape) for each in seen} == {(size, 192) for size in SIZES}


def test_the_number_follows_the_tokens_and_the_most_that_is_allowed():
    used = Threads(2, serial=8)
    seen = []
    for tokens in (8, 9, 200, 1):
        used.use(tokens)
        seen.append(torch.get_num_threads())
    assert seen == [1, 2, 2, 1]
    used.set_most(1)
    used.use(200)
    assert torch.get_num_threads() == 1


def test_another_thread_is_told_too():
    used = Threads(2, serial=8)
    used.use(4)
    used.forget()
    seen = []

    def work():
        used.use(4)
        seen.append(torch.get_num_threads())

    other = threading.Thread(target=work)
    other.start()
    other.join()
    assert seen == [1]
