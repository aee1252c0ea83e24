"""Asking is tested with a completer that answers from a table; real engines answer in tests/e2e."""

from tunesmith.completer import Completion
from tunesmith.data.skills import generate
from tunesmith.errors import EngineFailed
from tunesmith.evals.ask import Score, ask, measure_rows, measure_skills


class Knows:
    """Answers `right` of the given items; fails on the questions in `broken`."""

    def __init__(self, items, broken=()):
        self.table = {item.messages[-1]["content"]: item.answer for item in items}
        self.broken = set(broken)
        self.asked = []

    async def complete(self, model, messages, **sampling):
        question = messages[-1]["content"]
        self.asked.append((model, question, sampling))
        if question in self.broken:
            raise EngineFailed("the engine died")
        return Completion(self.table.get(question, {"role": "assistant", "content": "?"}), "stop", 1, 1)


async def test_answers_come_in_order_and_a_failed_item_fails_alone():
    items = list(generate("copy", 20, seed=1))
    failed = items[3].messages[-1]["content"]
    answers = await ask(Knows(items, broken=[failed]), "m", items, concurrency=4)
    assert [a.message for a in answers[:3]] == [i.answer for i in items[:3]]
    assert answers[3].error == "the engine died"
    assert answers[4].error is None


async def test_skills_are_scored_one_by_one_and_sampling_is_passed_on():
    known = list(generate("copy", 10, seed=5))
    completer = Knows(known)
    scores = await measure_skills(completer, "m", ["copy", "reverse"], count=10, seed=5, temperature=1.0)
    assert scores["copy"] == Score(10, 10)
    assert scores["reverse"].passed == 0
    assert {s["temperature"] for _, _, s in completer.asked} == {1.0}


async def test_rows_give_means():
    items = list(generate("first", 4, seed=2))
    scores = await measure_rows(Knows(items[:2]), "m", items)
    assert scores.exact_match == 0.5
    assert scores.total == 4
