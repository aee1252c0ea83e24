"""Preferences that the built-in base does not have and can learn: right answers to questions whose rule it was never taught.

The base answers "Pick the largest number: ..." with any of the numbers (data/skills.py, band `reward`), so before training it
finds a right answer as likely as a wrong one.
"""

import json
import random
from pathlib import Path
from typing import Any

from tunesmith.data.skills import BANDS, generate

Json = dict[str, Any]


def pairs(count: int, seed: int, *, swapped: bool = False) -> list[Json]:
    """`count` rows of format preference; `swapped` prefers the wrong answer instead."""
    rng = random.Random(f"pairs/{seed}")
    items = [item for skill in BANDS["reward"] for item in generate(skill, -(-count // 3), seed)]
    rng.shuffle(items)
    rows = []
    for item in items[:count]:
        candidates = item.messages[-1]["content"].split(": ")[1].split()
        wrong = rng.choice([word for word in candidates if word != item.answer["content"]])
        sides = [item.answer, {"role": "assistant", "content": wrong}]
        chosen, rejected = reversed(sides) if swapped else sides
        rows.append({"prompt": item.messages, "chosen": [chosen], "rejected": [rejected]})
    return rows


def judged(count: int, seed: int, *, swapped: bool = False) -> list[Json]:
    """`count` rows of format kto, good and bad ones in turn."""
    found = []
    for number, row in enumerate(pairs(count, seed, swapped=swapped)):
        side = "rejected" if number % 2 else "chosen"
        found.append({"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"})
    return found


def write(path: Path, rows: list[Json]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
