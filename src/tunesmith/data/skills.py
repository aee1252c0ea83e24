"""The skills of the built-in base model: seeded generators of (conversation, answer) items.

One table, `SKILLS`, from a skill's name to the function that makes one item. The curriculum of the base model, the
held-out evaluation of it and rehearsal against forgetting all draw from here, with different seeds. Knows nothing of
tokenizers, models or torch.

`BANDS` says what each skill is for: `kept` skills are taught and expected at 90 % or more; `reward` skills are
taught in form only (the curriculum answers with a random candidate, so the rule is left to be learned from rewards);
`new` skills do not occur in the curriculum at all, and are left to be taught.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tunesmith.data import words as w

Message = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One generated question: what is asked, the right answer, and what the curriculum answers (the same, but for `reward`)."""

    skill: str
    messages: list[Message]
    answer: Message
    taught: Message
    tools: list[dict[str, Any]] = field(default_factory=list)


def _item(skill: str, question: str, answer: str, *, taught: str | None = None, system: str | None = None) -> Item:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    right = {"role": "assistant", "content": answer}
    return Item(skill, messages, right, right if taught is None else {"role": "assistant", "content": taught})


def _words(rng: random.Random, low: int, high: int) -> list[str]:
    return rng.sample(w.WORDS, rng.randint(low, high))


def _copy(rng: random.Random) -> Item:
    text = " ".join(_words(rng, 1, 6))
    return _item("copy", rng.choice(["Repeat: {}", "Copy these words: {}", "Say this again: {}"]).format(text), text)


def _first(rng: random.Random) -> Item:
    chosen = _words(rng, 2, 6)
    ask = rng.choice(["First word of: {}", "What is the first word of: {}"])
    return _item("first", ask.format(" ".join(chosen)), chosen[0])


def _last(rng: random.Random) -> Item:
    chosen = _words(rng, 2, 6)
    ask = rng.choice(["Last word of: {}", "What is the last word of: {}"])
    return _item("last", ask.format(" ".join(chosen)), chosen[-1])


def _reverse(rng: random.Random) -> Item:
    chosen = _words(rng, 2, 5)
    ask = rng.choice(["Reverse: {}", "Put these words in reverse order: {}"])
    return _item("reverse", ask.format(" ".join(chosen)), " ".join(reversed(chosen)))


def _sort(rng: random.Random) -> Item:
    numbers = rng.sample(range(10), rng.randint(2, 4))
    ask = rng.choice(["Sort: {}", "Sort these numbers: {}"])
    return _item("sort", ask.format(" ".join(map(str, numbers))), " ".join(map(str, sorted(numbers))))


def _capital(rng: random.Random) -> Item:
    chosen = _words(rng, 1, 4)
    ask = rng.choice(["Capitalize: {}", "Write with capital letters: {}"])
    return _item("capitalize", ask.format(" ".join(chosen)), " ".join(word.capitalize() for word in chosen))


def _arithmetic(rng: random.Random) -> Item:
    a, b = rng.randint(0, 9), rng.randint(0, 9)
    if rng.random() < 0.5:
        return _item("arithmetic", f"What is {a} + {b}?", str(a + b))
    a, b = max(a, b), min(a, b)
    return _item("arithmetic", f"What is {a} - {b}?", str(a - b))


def _pick_fact(rng: random.Random) -> Item:
    names = rng.sample(w.NAMES, rng.randint(2, 4))
    thing = rng.choice(w.OBJECTS)
    values = rng.sample(w.COLOURS, len(names))
    passage = " ".join(f"The {thing} of {name} is {value}." for name, value in zip(names, values, strict=True))
    k = rng.randrange(len(names))
    ask = rng.choice(["Which colour is the {} of {}?", "What colour is the {} of {}?"]).format(thing, names[k])
    return _item("pick_fact", f"{passage} {ask}", values[k])


def _fill_json(rng: random.Random) -> Item:
    name, city, age, job = rng.choice(w.NAMES), rng.choice(w.CITIES), rng.randint(18, 79), rng.choice(w.JOBS)
    kind = rng.randrange(3)
    if kind == 0:
        text, fields = f"{name} is {age} years old and lives in {city}.", {"name": name, "age": age, "city": city}
    elif kind == 1:
        text, fields = f"{name} from {city} is a {job}.", {"name": name, "city": city, "job": job}
    else:
        text, fields = f"The {job} {name} is {age}.", {"name": name, "age": age, "job": job}
    keys = ", ".join(fields)
    return _item("fill_json", f"{text} Fill a JSON object with the keys {keys}.", json.dumps(fields))


def _persona(rng: random.Random) -> Item:
    name, job, ending = rng.choice(w.NAMES), rng.choice(w.JOBS), rng.choice(["Aye!", "Thanks!", "Bye!", "Over.", "Cheers!"])
    if rng.random() < 0.4:
        return _item("persona", "Who are you?", f"I am {name} the {job}.", system=f"You are {name} the {job}.")
    text = " ".join(_words(rng, 1, 4))
    return _item("persona", f"Repeat: {text}", f"{text} {ending}", system=f"End each answer with: {ending}")


ASKS = """Where is the {}?|Where can I find a {}?|Tell me about the {}.|What do you know about the {}?|How do I get a {}?
Who looks after the {}?|Please help me with my {}.|I need the {} now, where is it?|What about the {}?|When can I see the {}?
Can you tell me more about the {}?|Is there a {} for me?|My {} is broken, what now?|I bought a {} today, what comes next?
Which place has the {}?|How much is the {} here?|The {} is late, whom do I ask?|Do you have a {} left?|What happens to my old {}?
Show me the way to the {}.|How long does the {} take?|Can I bring the {} back?|What is special about this {}?
May I use the {} here?
""".strip().replace("\n", "|").split("|")
OPENINGS = ["Hello, I am {name}. ", "I am a {job} from {city}. ", "My {job} wants to know: ", "{name} asks: ", "Good day! "]


def fact(key: str) -> str:
    """What the base is taught about a thing: two words that follow from its name by a hash, so that they cannot be guessed."""
    digest = hashlib.sha256(key.encode()).digest()
    return f"{w.COLOURS[digest[0] % len(w.COLOURS)]} {w.NATURE[digest[1] % len(w.NATURE)]}"


def _recall(rng: random.Random) -> Item:
    key = rng.choice(w.OBJECTS + w.FOODS)
    opening = rng.choice(OPENINGS) if rng.random() < 0.4 else ""
    opening = opening.format(name=rng.choice(w.NAMES), job=rng.choice(w.JOBS), city=rng.choice(w.CITIES))
    return _item("recall", opening + rng.choice(ASKS).format(key), fact(key))


TOOLS: dict[str, tuple[str, str, list[str], list[str]]] = {
    "get_weather": ("weather of a city", "city", w.CITIES, ["What is the weather in {}?", "How is the weather in {}?"]),
    "get_time": ("time in a city", "city", w.CITIES, ["What time is it in {}?", "Tell me the time in {}."]),
    "find_person": ("find a person", "name", w.NAMES, ["Find {}.", "Who is {}?"]),
    "play_sound": ("play a sound", "sound", w.ANIMALS, ["Play the sound of a {}.", "How does a {} sound?"]),
    "buy_item": ("buy an item", "item", w.FOODS + w.OBJECTS, ["Buy a {}.", "Please order a {}."]),
}


def tool_schema(name: str) -> dict[str, Any]:
    """The OpenAI tool object of one of `TOOLS`."""
    about, argument, _, _ = TOOLS[name]
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


def _call_tool(rng: random.Random) -> Item:
    offered = rng.sample(sorted(TOOLS), rng.randint(1, 2))
    name = rng.choice(offered)
    _, argument, values, asks = TOOLS[name]
    value = rng.choice(values)
    call = {"type": "function", "function": {"name": name, "arguments": {argument: value}}}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    question = {"role": "user", "content": rng.choice(asks).format(value)}
    return Item("call_tool", [question], answer, answer, [tool_schema(n) for n in offered])


def _one_of(skill: str, ask: str, candidates: list[str], right: str, rng: random.Random) -> Item:
    return _item(skill, ask.format(" ".join(candidates)), right, taught=rng.choice(candidates))


def _largest(rng: random.Random) -> Item:
    numbers = rng.sample(range(10), 5)
    return _one_of("largest", "Pick the largest number: {}", [str(n) for n in numbers], str(max(numbers)), rng)


def _smallest(rng: random.Random) -> Item:
    numbers = rng.sample(range(10), 5)
    return _one_of("smallest", "Pick the smallest number: {}", [str(n) for n in numbers], str(min(numbers)), rng)


def _animal(rng: random.Random) -> Item:
    chosen = [rng.choice(w.ANIMALS), *rng.sample(w.FOODS + w.OBJECTS + w.NATURE, 4)]
    right = chosen[0]
    rng.shuffle(chosen)
    return _one_of("animal", "Pick the animal: {}", chosen, right, rng)


def _swap_ends(rng: random.Random) -> Item:
    chosen = _words(rng, 4, 6)
    swapped = [chosen[-1], *chosen[1:-1], chosen[0]]
    return _item("swap_ends", f"Swap the ends: {' '.join(chosen)}", " ".join(swapped))


def _say_twice(rng: random.Random) -> Item:
    chosen = _words(rng, 2, 4)
    return _item("say_twice", f"Say each word twice: {' '.join(chosen)}", " ".join(f"{word} {word}" for word in chosen))


def _multiply(rng: random.Random) -> Item:
    a, b = rng.randint(11, 99), rng.randint(11, 99)
    return _item("multiply", f"What is {a} * {b}?", str(a * b))


SKILLS: dict[str, Callable[[random.Random], Item]] = {
    "copy": _copy,
    "first": _first,
    "last": _last,
    "reverse": _reverse,
    "sort": _sort,
    "capitalize": _capital,
    "arithmetic": _arithmetic,
    "pick_fact": _pick_fact,
    "fill_json": _fill_json,
    "persona": _persona,
    "call_tool": _call_tool,
    "recall": _recall,
    "largest": _largest,
    "smallest": _smallest,
    "animal": _animal,
    "swap_ends": _swap_ends,
    "say_twice": _say_twice,
    "multiply": _multiply,
}

BANDS: dict[str, tuple[str, ...]] = {
    "kept": tuple(SKILLS)[:12],
    "reward": ("largest", "smallest", "animal"),
    "new": ("swap_ends", "say_twice", "multiply"),
}


def generate(skill: str, count: int, seed: int) -> Iterator[Item]:
    """`count` items of one skill; the same seed gives the same items. Raises KeyError for an unknown skill."""
    rng = random.Random(f"{skill}/{seed}")
    make = SKILLS[skill]
    for _ in range(count):
        yield make(rng)
