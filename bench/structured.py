"""Forms in process, without HTTP: is all that an untrained model says valid, and what does a mask cost?

    python -m bench.structured                                                # 1,000 completions, 200 schemas; and unbounded ones
    python -m bench.structured --speed --base .tunesmith/shaped/smollm2-135m   # 8 schemas against free text

Bounded schemas have maxLength, maxItems and ranges, and their requests a max_tokens that admits the longest instance: all must be
valid. An unbounded one may end with `length`; its text must then be a beginning of what the schema allows.
"""

import argparse
import json
import queue
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.serve.structured import rooted
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.engine.build import build_runner
from tunesmith.engine.constraints import Form, Forms, json_grammar
from tunesmith.engine.core import Core
from tunesmith.engine.logits import bars
from tunesmith.engine.sequence import Sampling, Sequence
from tunesmith.engine.text import TextStream
from tunesmith.models.catalog import Base, find_base
from tunesmith.paths import TINY

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
BOUNDS = ("maxLength", "maxItems", "minimum", "maximum", "additionalProperties")
UNBOUNDED_TOKENS = 60
SPEED_TOKENS = 48


class Said(NamedTuple):
    text: str
    reason: str


class Bench:
    def __init__(self, base: Base):
        self.tokenizer = load_tokenizer(base.folder)
        runner = build_runner(base, "none")
        self.end_tokens = runner.end_tokens() | {self.tokenizer.eos_token_id}
        self.forms = Forms(self.tokenizer, self.end_tokens)
        self.max_positions = base.max_positions
        self.core = Core(runner)
        self.core.start()
        self._count = 0

    def form(self, schema: dict[str, Any]) -> Form:
        return self.forms.make_now(json_grammar(schema), 1, "schema")[0]

    def ask(self, wanted: list[tuple[Form | None, Sampling]], *, ends: bool = True) -> list[Said]:
        """One completion for each, all at once. Raises what one fails of."""
        done: queue.Queue[tuple[int, Any]] = queue.Queue()
        for index, (form, sampling) in enumerate(wanted):
            self._count += 1
            self.core.add(Sequence(
                id=self._count, tokens=list(range(300, 340)), sampling=sampling,
                sink=lambda output, index=index: done.put((index, output)),
                text=TextStream(lambda tokens: self.tokenizer.decode(tokens, skip_special_tokens=True)),
                end_tokens=self.end_tokens if ends else frozenset(), max_positions=self.max_positions, constraint=form,
            ))
        outputs = dict(done.get() for _ in wanted)
        for output in outputs.values():
            if output.error is not None:
                raise output.error
        return [Said(outputs[index].text, outputs[index].finish_reason) for index in range(len(wanted))]


def untrained(folder: Path) -> Base:
    """The built-in base's shape and tokenizer, its weights noise."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig.from_pretrained(TINY)).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(TINY / name, folder / name)
    return find_base(str(folder))


def without_bounds(schema: Any) -> Any:
    """The same schema with strings, lists and numbers of any length."""
    if isinstance(schema, list):
        return [without_bounds(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: without_bounds(value) for name, value in schema.items() if name not in BOUNDS}


def is_valid(text: str, schema: dict[str, Any]) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def is_beginning(bench: Bench, text: str, schema: dict[str, Any]) -> bool:
    """Spelled by other tokens, by a form that did not make it. A broken character at the end is left out."""
    form = bench.form(schema)
    for token in bench.tokenizer.encode(text.rstrip("\ufffd"), add_special_tokens=False):
        allowed = int.from_bytes(form.allowed(), "little")
        if not allowed >> token & 1:
            return False
        form.accept(token)
    return True


def validity(bench: Bench, num_schemas: int, each: int, *, bounded: bool) -> Counter[str]:
    dice, found = random.Random(17), Counter[str]()
    schemas = [rooted(dice) for _ in range(num_schemas)]
    for start in range(0, num_schemas, 6):
        group = [pair for pair in schemas[start : start + 6] for _ in range(each)]
        shapes = [schema if bounded else without_bounds(schema) for schema, _ in group]
        wanted = [
            (bench.form(shape), Sampling(most if bounded else UNBOUNDED_TOKENS, temperature=1.0, seed=start * each + at))
            for at, (shape, (_, most)) in enumerate(zip(shapes, group, strict=True))
        ]
        for shape, said in zip(shapes, bench.ask(wanted), strict=True):
            good = is_valid(said.text, shape) if said.reason == "stop" else is_beginning(bench, said.text, shape)
            found[f"{said.reason}, {'good' if good else 'BAD'}"] += 1
            if not good:
                print("BAD", json.dumps(shape), repr(said.text))
    return found


def speed(bench: Bench, rounds: int) -> None:
    """Eight different schemas, whose instances are longer than max_tokens, beside free text of the same length."""
    names = ["name", "street", "title", "body", "author", "summary", "comment", "reply"]
    text = {"type": "string", "minLength": 400, "maxLength": 500}
    schemas = [
        {"type": "object", "properties": {name: text, f"{name}_{at}": {"type": "integer"}}, "required": [name],
         "additionalProperties": False}
        for at, name in enumerate(names)
    ]
    free, formed = list[float](), list[float]()
    for number in range(rounds + 1):
        for rates, with_form in ((free, False), (formed, True)):
            sampling = Sampling(SPEED_TOKENS, temperature=0)
            wanted = [(bench.form(schema) if with_form else None, sampling) for schema in schemas]
            start = time.perf_counter()
            bench.ask(wanted, ends=False)
            if number:
                rates.append(len(wanted) * SPEED_TOKENS / (time.perf_counter() - start))
    ratios = [one / other for one, other in zip(formed, free, strict=True)]
    print(f"free {statistics.median(free):.1f} tok/s, eight schemas {statistics.median(formed):.1f} tok/s, "
          f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    form, steps, logits = bench.form(schemas[0]), list[float](), torch.randn(8, 49152)
    for token in bench.tokenizer.encode('{"name":"' + "abc " * 20):
        start = time.perf_counter()
        bits = form.allowed()
        steps.append(time.perf_counter() - start)
        form.accept(token)
    start = time.perf_counter()
    for _ in range(100):
        masks = torch.frombuffer(bytearray(bits * 8), dtype=torch.uint8).view(8, -1)
        logits.index_add(0, torch.arange(8), bars(masks, logits.shape[-1]))
    print(f"mask of a row: {statistics.median(steps) * 1e6:.0f} us median, {max(steps) * 1e6:.0f} us most; "
          f"spread and applied to 8 rows of 49,152: {(time.perf_counter() - start) * 1e4:.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="id or folder; else an untrained model of the built-in base's shape")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--schemas", type=int, default=200)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(find_base(args.base) if args.base else untrained(Path(folder)))
        if args.speed:
            speed(bench, args.rounds)
        else:
            print("bounded:", dict(validity(bench, args.schemas, 5, bounded=True)))
            print("unbounded:", dict(validity(bench, args.schemas // 5, 5, bounded=False)))
        bench.core.stop()


if __name__ == "__main__":
    main()
