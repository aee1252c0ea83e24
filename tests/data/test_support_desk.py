"""The shipped example data keeps what the demo's figures rest on: its answers are new to the base, its held-out questions too."""

import json
import re
from pathlib import Path

import pytest

from tunesmith.data import words as w
from tunesmith.data.formats import read_rows
from tunesmith.data.skills import SKILLS, generate
from tunesmith.paths import SUPPORT_DESK

PER_SKILL = 500


def pairs(name: str) -> list[tuple[str, str]]:
    """(question, answer) of each row."""
    read = read_rows(SUPPORT_DESK / name)
    assert not read.problems
    assert read.format == "chat"
    assert all([m["role"] for m in row.messages] == ["user", "assistant"] for row in read.rows)
    return [(row.messages[0]["content"], row.messages[1]["content"]) for row in read.rows]


TRAIN, HELD_OUT = pairs("train.jsonl"), pairs("heldout.jsonl")
ANSWERS = {answer for _, answer in TRAIN + HELD_OUT}


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def trigrams(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[n : n + 3]) for n in range(len(found) - 2)}


def spelled(text: str) -> str:
    """Lower-case words with a blank before and after each, so that `in` finds whole words only."""
    return f" {' '.join(words(text))} "


def test_it_has_200_to_400_rows():
    assert 200 <= len(TRAIN) + len(HELD_OUT) <= 400


def test_it_has_at_least_60_distinct_answers_of_two_words_or_more():
    assert len({spelled(answer) for answer in ANSWERS if len(words(answer)) >= 2}) >= 60
    assert all(len(words(answer)) >= 2 for answer in ANSWERS)


def test_held_out_rows_are_new_wordings_of_taught_facts():
    taught = {answer for _, answer in TRAIN}
    assert {answer for _, answer in HELD_OUT} <= taught
    assert not {spelled(question) for question, _ in HELD_OUT} & {spelled(question) for question, _ in TRAIN}


def test_no_held_out_question_shares_over_60_percent_of_its_trigrams_with_a_training_question():
    taught = [trigrams(question) for question, _ in TRAIN]
    for question, _ in HELD_OUT:
        own = trigrams(question)
        assert own, question
        assert max(len(own & other) / len(own) for other in taught) <= 0.6, question


def test_a_question_has_one_answer():
    assert len({spelled(question) for question, _ in TRAIN + HELD_OUT}) == len(TRAIN) + len(HELD_OUT)


@pytest.fixture(scope="module")
def curriculum() -> list[str]:
    """Every text of 500 items of every skill: what is asked, answered and taught, tools included."""
    texts = []
    for skill in SKILLS:
        for item in generate(skill, PER_SKILL, seed=123):
            messages = [*item.messages, item.answer, item.taught]
            texts += [spelled(m["content"]) for m in messages]
            texts += [spelled(json.dumps(call)) for m in messages for call in m.get("tool_calls", [])]
            texts += [spelled(json.dumps(tool)) for tool in item.tools]
    return texts


def test_no_answer_occurs_in_the_curriculum_of_the_base(curriculum):
    everything = "|".join(curriculum)
    assert not [answer for answer in ANSWERS if spelled(answer) in everything]


def test_no_skill_can_draw_an_answer_by_chance():
    """Skills draw words from these lists; each answer has a word that is in none, so no seed can draw it."""
    drawn = {word.lower() for word in w.WORDS + w.NAMES + w.CITIES}
    assert not [answer for answer in ANSWERS if set(words(answer)) <= drawn]


def test_the_readme_says_what_it_is_and_under_which_licence():
    text = Path(SUPPORT_DESK / "README.md").read_text()
    assert "Apache-2.0" in text
    assert f"{len(TRAIN)} rows" in text
    assert f"{len(HELD_OUT)} rows" in text
