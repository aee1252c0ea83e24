"""A client that sends nonsense in every field is answered properly, and another's greedy answer does not change by a byte."""

import asyncio
import random
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer

from engine.conftest import ENGINE_KEY
from tunesmith.engine.answers import Served
from tunesmith.engine.requests import ChatRequest, CompletionRequest

NUM_REQUESTS = 240
GAP = 1e-3
"""Nats between a greedy token and the next best, above which no other request in the batch may change it."""

LOOP = 'start: a\na: a a | "x"'
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 0.5, 1e-300, 1e300, -1e9, 2**70, "", "a", "\x00", "x" * 3000, [], [0], [-1], [[]], ["a", "b"],
    {}, {"type": "json_object"}, {"regex": "("}, {"json": {"$ref": "#"}}, {"grammar": "start: start"}, {"9999": 1},
    [{"type": "function", "function": {"name": "f"}}], "required", [{"role": "tool", "content": {}}], [[5, 6], [7]], 7, 40,
]
"""For any field."""
EXTREMES: dict[str, list[Any]] = {
    "temperature": [0, 1e-300, 2], "top_p": [0, 1e-9, 1], "min_p": [0, 1], "top_k": [-1, 1, 1_000_000], "n": [1, 16],
    "presence_penalty": [-2, 2], "frequency_penalty": [-2, 2], "repetition_penalty": [0.01, 100], "seed": [0, -(2**63)],
    "logit_bias": [{"5": 100}, {"4095": -100}, {str(token): -100 for token in range(1000)}], "min_tokens": [0, 10**9],
    "stop": ["a", [" ", "e", "\ufffd"]], "ignore_eos": [True], "stream": [True], "echo": [True], "logprobs": [True, 0, 20],
    "response_format": [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": [1]}}}],
    "structured_outputs": [{"regex": "(a|b)+"}, {"choice": ["yes", "no"]}, {"json": {"type": "array"}}, {"grammar": LOOP}],
    "cache_salt": ["other"], "priority": ["batch"], "deadline_seconds": [1e-9, 0.05], "max_tokens": [1, 100],
}
"""For their own fields: what is let through, and may do harm."""
FIELDS = sorted({*ChatRequest.model_fields, *CompletionRequest.model_fields} - {"model"})


class Client:
    def __init__(self, session: aiohttp.ClientSession, server: TestServer, model: str):
        self._session, self._server, self._model = session, server, model

    async def ask(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        answer = await self._session.post(self._server.make_url(path), json={"model": self._model, **body})
        return answer.status, await (answer.text() if answer.content_type == "text/event-stream" else answer.json())

    async def quiet(self, prompt: list[int]) -> tuple[str, float]:
        """A greedy completion, and its smallest gap between the two best tokens."""
        body = {"prompt": prompt, "max_tokens": 24, "temperature": 0, "logprobs": 2, "ignore_eos": True}
        status, answer = await self.ask("/v1/completions", body)
        assert status == 200
        choice = answer["choices"][0]
        tops = [sorted(top.values(), reverse=True) for top in choice["logprobs"]["top_logprobs"]]
        return choice["text"], min((top[0] - top[1] for top in tops if len(top) > 1), default=0.0)


def nonsense(dice: random.Random) -> tuple[str, dict[str, Any]]:
    path = dice.choice(["/v1/chat/completions", "/v1/completions"])
    body: dict[str, Any] = {"max_tokens": 20}
    body |= {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"prompt": "hi"}
    for name in dice.sample(FIELDS, dice.randint(1, 3)):
        body[name] = dice.choice(EXTREMES.get(name, VALUES) if dice.random() < 0.7 else VALUES)
    return path, body


async def test_nonsense_is_answered_properly_and_changes_no_other_answer(server: TestServer, served: Served) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ENGINE_KEY}"}) as session:
        client, dice = Client(session, server, served.base.id), random.Random(3)
        prompts = [[dice.randrange(4000) for _ in range(10)] for _ in range(12)]
        alone = {n: text for n, prompt in enumerate(prompts) for text, gap in [await client.quiet(prompt)] if gap >= GAP}
        assert len(alone) >= 3
        statuses = set()

        async def attack(number: int) -> None:
            own = random.Random(number)
            for _ in range(NUM_REQUESTS // 8):
                path, body = nonsense(own)
                status, answer = await client.ask(path, body)
                statuses.add(status)
                assert status == 200 or set(answer["error"]) == {"message", "type", "param", "code"}, (body, answer)
                assert status < 500, (body, answer)

        attacks = asyncio.gather(*(attack(number) for number in range(8)))
        num_checked = 0
        while not attacks.done() or not num_checked:
            for number, text in alone.items():
                assert (await client.quiet(prompts[number]))[0] == text
                num_checked += 1
        await attacks
        assert {200, 400} <= statuses
