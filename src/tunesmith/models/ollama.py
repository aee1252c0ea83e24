"""A Modelfile for Ollama: where the weights lie, the chat template in Ollama's words, what ends an answer. Imports no torch.

Ollama's templates are Go's, a model's are Jinja's: one cannot be had from the other. What can be had is found out by rendering:
how each role's message begins and ends. A template that does more than that (tools, thinking, text that depends on the place of a
message) is told to be so, and is never guessed.
"""

from collections.abc import Callable, Sequence

from tunesmith.errors import InvalidRequest
from tunesmith.types import Message

IMPORTED = frozenset({
    "LlamaForCausalLM", "MixtralForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM",
    "Gemma3ForConditionalGeneration", "Phi3ForCausalLM", "Qwen2ForCausalLM", "Olmo3ForCausalLM", "CohereForCausalLM",
})
"""Architectures whose safetensors `ollama create` converts (the switch in its convert.go)."""

Render = Callable[[list[Message], bool], str]
"""A conversation, and whether the assistant's turn is to begin -> the prompt."""
ROLES = ("system", "user", "assistant")
HOLE = "\x00"


def template(render: Render, bos: str) -> str:
    """The chat template in Go's words. Raises InvalidRequest, saying so, where it cannot be told.

    `bos` is left out where the prompt begins with it: Ollama puts it there.
    """
    opening, parts, generate = _parts(render)
    for messages in _trials():
        told = opening + "".join(parts[m["role"]][0] + m["content"] + parts[m["role"]][1] for m in messages) + generate
        if told != render(messages, True):
            raise _beyond("a message is rendered by what stands around it")
    opening = opening.removeprefix(bos)
    words = [opening, generate, *(text for part in parts.values() for text in part)]
    if any("{{" in text or '"""' in text for text in words):
        raise _beyond("it holds braces or quotes that Ollama would read as its own")
    cases = "{{ else ".join(
        f'if eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}' for role, (before, after) in parts.items()
    )
    return f"{opening}{{{{ range .Messages }}}}{{{{ {cases}{{{{ end }}}}{{{{ end }}}}{generate}"


def _parts(render: Render) -> tuple[str, dict[str, tuple[str, str]], str]:
    """What opens a prompt, what stands before and after each role's message, what begins the assistant's turn."""
    user = {"role": "user", "content": HOLE}
    one, two = (render([user] * count, False) for count in (1, 2))
    if one.count(HOLE) != 1 or two.count(HOLE) != 2:
        raise _beyond("it changes what a message says")
    # Of two users in a row: opening before HOLE after before HOLE after.
    _, between, after_two = two.split(HOLE)
    first, after = one.split(HOLE)
    if not between.startswith(after) or after_two != after:
        raise _beyond("a message is rendered by what stands around it")
    before = between[len(after) :]
    if not first.endswith(before):
        raise _beyond("its first message is rendered in another way")
    opening = first[: len(first) - len(before)]
    parts = {}
    for role in ROLES:
        alone = render([{"role": role, "content": HOLE}, user], False)
        if not alone.startswith(opening) or not alone.endswith(before + HOLE + after) or alone.count(HOLE) != 2:
            raise _beyond(f"a message of the {role} is rendered by what stands around it")
        inner = alone[len(opening) : len(alone) - len(before + HOLE + after)]
        parts[role] = (inner.split(HOLE)[0], inner.split(HOLE)[1])
    whole = render([user], True)
    return opening, parts, whole[len(one) :] if whole.startswith(one) else ""


def _trials() -> list[list[Message]]:
    texts = ("Be brief.", "Hello there", "Good day.\nWhat now?", "Repeat: one two", "one two")
    roles = (("user",), ("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant", "user", "assistant"))
    return [[{"role": role, "content": text} for role, text in zip(line, texts, strict=False)] for line in roles]


def _beyond(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The model's chat template cannot be told in Ollama's words: {why}.",
        hint="Export with --to merged, and write the Modelfile's TEMPLATE by hand.", code="template_not_exportable",
    )


def modelfile(template: str, stops: Sequence[str], *, name: str) -> str:
    """The file's text; it lies beside the weights. Answers are greedy unless a request says otherwise, as ours are by default."""
    lines = [f"# ollama create {name} -f Modelfile", "FROM .", f'TEMPLATE """{template}"""']
    return "\n".join([*lines, *(f'PARAMETER stop "{stop}"' for stop in stops)]) + "\n"
