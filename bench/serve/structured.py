"""What a form costs: eight schemas in one batch against free text, and whether all that comes is valid."""

import json
import random
from typing import Any

import jsonschema

from bench.serve import client
from bench.serve.bases import Prompts
from bench.serve.client import PeerFailed
from bench.serve.peers import Http, Pool, Wanted
from bench.serve.report import Row, compared
from bench.serve.rounds import say
from bench.serve.throughput import ours

STRUCTURED_SHARE = 0.7
PATH = "/v1/chat/completions"
LEAVES = (
    ({"type": "string", "maxLength": 12}, 12 * 12 + 2), ({"type": "integer", "minimum": 0, "maximum": 9999}, 8),
    ({"type": "boolean"}, 6), ({"enum": ["red", "green", "blue"]}, 8), ({"type": "null"}, 6),
)
"""Schemas of one value, and the most tokens that it takes: a token is at least a byte, an escaped character at most twelve."""


def schema(dice: random.Random, *, depth: int = 2) -> tuple[dict[str, Any], int]:
    """A bounded schema, and the tokens of its longest instance."""
    if depth and dice.random() < 0.5:
        inner, size = schema(dice, depth=depth - 1)
        most = dice.randint(1, 3)
        return {"type": "array", "items": inner, "maxItems": most}, most * (size + 2) + 2
    if depth:
        names = dice.sample(["name", "age", "city", "tags", "id", "color", "ok", "note"], dice.randint(1, 4))
        parts = {name: schema(dice, depth=depth - 1) for name in names}
        whole = {"type": "object", "properties": {name: part for name, (part, _) in parts.items()},
                 "required": names, "additionalProperties": False}
        return whole, sum(size + len(name) + 5 for name, (_, size) in parts.items()) + 2
    leaf, size = dice.choice(LEAVES)
    return dict(leaf), size


def rooted(dice: random.Random) -> tuple[dict[str, Any], int]:
    """An object at the root, as OpenAI wants it."""
    inner, size = schema(dice)
    whole = {"type": "object", "properties": {"value": inner}, "required": ["value"], "additionalProperties": False}
    return whole, size + 12


def form(shape: dict[str, Any], number: int) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": f"s{number}", "schema": shape, "strict": True}}


def _body(model: str, text: str, max_tokens: int, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, **more}


async def speed(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """Tokens per second at 8 at once. The schemas have long strings, so that all eight write to the end of max_tokens."""
    rows = []
    for kind, at_least in (("ours", STRUCTURED_SHARE), ("vllm", None)):
        free: list[float] = []
        formed: list[float] = []
        note = ""
        try:
            peer = await pool.awake(ours(base).wanted if kind == "ours" else Wanted(kind, base))
            assert isinstance(peer, Http)
            for number in range(min(2, pool.bench.rounds) + 1):
                bodies = [_body(peer.model, prompts.text(prompts.tokens(40)), 64, temperature=0) for _ in range(8)]
                plain = [body | {"ignore_eos": True} for body in bodies]
                asked = [body | {"response_format": form(_long(place), place)} for place, body in enumerate(bodies)]
                pair = [(await client.burst(peer.url, each, PATH)).rate for each in (plain, asked)]
                if number:  # The first one compiles the schemas.
                    free.append(pair[0])
                    formed.append(pair[1])
        except PeerFailed as error:
            note = str(error)
        what = "free text" if kind == "ours" else "vllm, free text"
        rows.append(compared(
            name, "8 at once, 8 schemas, 64 out", what, formed, free, at_least=at_least,
            note=note or ("" if kind == "ours" else "`ours` is vllm here"),
        ))
    return rows


def _long(number: int) -> dict[str, Any]:
    names = ["name", "street", "title", "body", "author", "summary", "comment", "reply"]
    text = {"type": "string", "minLength": 200, "maxLength": 400}
    properties = {names[(number + step) % 8]: text for step in range(1 + number % 3)}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


async def valid(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """Completions of an untrained model, sampled; all of bounded schemas must be valid, with room for their longest instance."""
    dice, total, errors = random.Random(11), 0, 0
    num_schemas, each, note = (40, 2, "") if pool.bench.quick else (200, 5, "")
    schemas = [rooted(dice) for _ in range(num_schemas)]
    peer = await pool.awake(ours(base, holds=()).wanted)
    assert isinstance(peer, Http)
    for start in range(0, num_schemas, 8):
        group = [pair for pair in schemas[start : start + 8] for _ in range(each)]
        bodies = [
            _body(peer.model, prompts.text(prompts.tokens(12)), size, response_format=form(shape, at), seed=100 * start + at)
            for at, (shape, size) in enumerate(group)
        ]
        said = (await client.burst(peer.url, bodies, PATH)).said
        for (shape, _), answer in zip(group, said, strict=True):
            total += 1
            problem = _problem(answer.text, shape)
            errors += bool(problem)
            note = note or (f"first failure: {problem}" if problem else "")
        say(f"  {total} completions, {errors} not valid")
    load = f"{total} completions, {num_schemas} schemas, temperature 1"
    return [Row(name, load, "-", (total - errors) / total, None, "share valid", at_least=1.0, note=note)]


def _problem(text: str, shape: dict[str, Any]) -> str:
    try:
        jsonschema.validate(json.loads(text), shape)
    except (ValueError, jsonschema.ValidationError) as error:
        return f"{str(error).splitlines()[0][:80]} in {text[:80]!r}"
    return ""
