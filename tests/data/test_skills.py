"""The generated skills: seeded, right by an independent computation, and in the bands that later work relies on."""

import hashlib
import json
import random
import re

import pytest

from tunesmith.data import words as w
from tunesmith.data.skills import BANDS, SKILLS, TOOLS, Item, generate, tool_schema

COUNT = 200


def asked(item: Item) -> str:
    return item.messages[-1]["content"]


def listed(item: Item) -> list[str]:
    """The words after the question's colon."""
    return asked(item).split(": ", 1)[1].split()


def calculated(item: Item) -> str:
    a, sign, b = re.fullmatch(r"What is (\d+) ([-+*]) (\d+)\?", asked(item)).groups()
    return str({"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign])


def fact(item: Item) -> str:
    """The colour that the passage gives to whoever the question names."""
    thing, name = re.search(r"colour is the (\w+) of (\w+)\?$", asked(item)).groups()
    return re.search(rf"The {thing} of {name} is (\w+)\.", asked(item)).group(1)


def filled(item: Item) -> str:
    """The object, from the sentence: the age is its number, the rest is known from the vocabulary."""
    sentence, keys = re.fullmatch(r"(.+) Fill a JSON object with the keys (.+)\.", asked(item)).groups()
    found = set(re.findall(r"\w+", sentence))
    sources = {"name": w.NAMES, "city": w.CITIES, "job": w.JOBS}
    values = {key: next(word for word in known if word in found) for key, known in sources.items() if found & set(known)}
    values["age"] = int("".join(re.findall(r"\d+", sentence)) or 0)
    return json.dumps({key: values[key] for key in keys.split(", ")})


def in_person(item: Item) -> str:
    system = item.messages[0]["content"]
    if asked(item) == "Who are you?":
        return system.replace("You are", "I am")
    return f"{' '.join(listed(item))} {system.removeprefix('End each answer with: ')}"


def recalled(item: Item) -> str:
    """The thing's two words: the first two bytes of its sha256 choose them."""
    thing = only([word for word in re.findall(r"\w+", asked(item)) if word in w.OBJECTS + w.FOODS])
    first, second = bytes.fromhex(hashlib.sha256(thing.encode()).hexdigest()[:4])
    return f"{w.COLOURS[first % len(w.COLOURS)]} {w.NATURE[second % len(w.NATURE)]}"


def only(candidates: list[str]) -> str:
    assert len(candidates) == 1
    return candidates[0]


RULES = {
    "copy": lambda item: " ".join(listed(item)),
    "first": lambda item: listed(item)[0],
    "last": lambda item: listed(item)[-1],
    "reverse": lambda item: " ".join(listed(item)[::-1]),
    "sort": lambda item: " ".join(str(n) for n in range(10) if str(n) in listed(item)),
    "capitalize": lambda item: " ".join(listed(item)).title(),
    "arithmetic": calculated,
    "pick_fact": fact,
    "fill_json": filled,
    "persona": in_person,
    "recall": recalled,
    "largest": lambda item: str(next(n for n in range(9, -1, -1) if str(n) in listed(item))),
    "animal": lambda item: only([word for word in listed(item) if word in w.ANIMALS]),
    "smallest": lambda item: str(min(int(n) for n in listed(item))),
    "swap_ends": lambda item: re.sub(r"^(\w+)(.*) (\w+)$", r"\3\2 \1", " ".join(listed(item))),
    "say_twice": lambda item: re.sub(r"(\w+)", r"\1 \1", " ".join(listed(item))),
    "multiply": calculated,
}


@pytest.mark.parametrize("skill", RULES)
def test_the_answer_is_right_by_another_computation(skill):
    for item in generate(skill, COUNT, seed=5):
        assert item.answer == {"role": "assistant", "content": RULES[skill](item)}, asked(item)


def test_the_right_tool_is_called_with_the_value_asked_for():
    for item in generate("call_tool", COUNT, seed=5):
        assert tool_schema("get_time") == item.tools[0] or item.tools[0]["function"]["name"] in TOOLS
        (call,) = item.answer["tool_calls"]
        name = call["function"]["name"]
        (value,) = call["function"]["arguments"].values()
        _, argument, values, questions = TOOLS[name]
        assert name in {tool["function"]["name"] for tool in item.tools}
        assert list(call["function"]["arguments"]) == [argument]
        assert value in values
        assert asked(item) in {question.format(value) for question in questions}


def test_every_skill_is_checked_here_and_stands_in_one_band():
    assert set(RULES) | {"call_tool"} == set(SKILLS)
    assert sorted(skill for skills in BANDS.values() for skill in skills) == sorted(SKILLS)
    assert len(BANDS["kept"]) >= 4
    assert len(BANDS["reward"]) >= 2
    assert len(BANDS["new"]) >= 2


@pytest.mark.parametrize("skill", SKILLS)
def test_the_same_seed_gives_the_same_items_and_another_seed_others(skill):
    assert list(generate(skill, 20, seed=1)) == list(generate(skill, 20, seed=1))
    assert list(generate(skill, 20, seed=1)) != list(generate(skill, 20, seed=2))


def test_fewer_items_are_the_beginning_of_more():
    assert list(generate("copy", 5, seed=1)) == list(generate("copy", 9, seed=1))[:5]


def test_an_unknown_skill_is_refused():
    with pytest.raises(KeyError):
        list(generate("juggle", 1, seed=1))


@pytest.mark.parametrize("skill", SKILLS)
def test_only_reward_skills_are_taught_another_answer_than_the_right_one(skill):
    items = list(generate(skill, COUNT, seed=3))
    wrong = sum(item.taught != item.answer for item in items)
    if skill not in BANDS["reward"]:
        assert wrong == 0
        return
    # A random one of five candidates: right by luck one time in five, so about 160 of 200 are wrong.
    assert 120 <= wrong <= 190
    assert all(item.taught["content"] in listed(item) for item in items)


def test_the_questions_of_new_skills_do_not_occur_among_the_others():
    """What is to be taught later must be new: no other skill asks in the same words."""
    openings = ("swap the ends", "say each word twice", " * ")
    for skill in BANDS["kept"] + BANDS["reward"]:
        for item in generate(skill, COUNT, seed=4):
            assert not any(opening in asked(item).lower() for opening in openings)
    for skill, opening in zip(("swap_ends", "say_twice", "multiply"), openings, strict=True):
        assert all(opening in asked(item).lower() for item in generate(skill, COUNT, seed=4))


def test_items_do_not_depend_on_the_global_random_state():
    random.seed(1)
    one = list(generate("sort", 5, seed=1))
    random.seed(2)
    assert list(generate("sort", 5, seed=1)) == one
