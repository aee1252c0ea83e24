"""What int8 costs: log-probabilities of decoded tokens against fp32, on the built-in base's own skills."""

import random
import statistics

from bench.serve import client
from bench.serve.bases import Prompts
from bench.serve.peers import Http, Pool
from bench.serve.report import Row
from bench.serve.throughput import ours
from tunesmith.data.skills import SKILLS

MOST_NATS = 0.02
NUM_QUESTIONS = 96
PATH = "/v1/chat/completions"


async def int8_quality(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """Greedy answers and sampled ones with the same seed, compared up to and with the first token that differs.

    The log-probability is of fp32's token in both; where int8 does not list it among its top 20, it is compared with the last.
    """
    dice = random.Random(3)
    questions = [dice.choice(list(SKILLS.values()))(dice) for _ in range(NUM_QUESTIONS)]
    lists: list[list[list[dict[str, object]]]] = []
    for quantize in ("none", "int8"):
        peer = await pool.awake(ours(base, quantize).wanted)
        assert isinstance(peer, Http)
        bodies = [
            {"model": peer.model, "messages": item.messages, "max_tokens": 32, "temperature": heat, "seed": number,
             "logprobs": True, "top_logprobs": 20} | ({"tools": item.tools} if item.tools else {})
            for heat in (0, 1) for number, item in enumerate(questions)
        ]
        said = [
            answer for start in range(0, len(bodies), 8)
            for answer in (await client.burst(peer.url, bodies[start : start + 8], PATH)).said
        ]
        lists.append([answer.raw["choices"][0]["logprobs"]["content"] for answer in said])
    gaps, parted = [], 0
    for full, small in zip(*lists, strict=True):
        for one, other in zip(full, small, strict=False):
            tops = {top["token"]: top["logprob"] for top in other["top_logprobs"]}
            gaps.append(abs(one["logprob"] - tops.get(one["token"], min(tops.values()))))
            if one["token"] != other["token"]:
                parted += 1
                break
    note = f"largest {max(gaps):.3f}, {len(gaps)} tokens, {parted} of {len(lists[0])} answers part"
    load = "skills of the base, 8 at once, greedy and temperature 1"
    return [Row(name, load, "-", statistics.fmean(gaps), None, "nats, mean difference to fp32", at_most=MOST_NATS, note=note)]
