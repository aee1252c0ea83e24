"""Renders conversations to token ids, with the loss mask: which tokens train. The engine renders with the same function.

The mask comes from the template itself (`answers.py`): trained are an assistant's text, its tool calls and the token that ends
its message; nothing after that, nothing before. Both the text and the ids are checked against the full render. Knows no files and
no torch.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from tunesmith.data.answers import Rendered, Span, rendered
from tunesmith.data.formats import Row
from tunesmith.data.images import has_image
from tunesmith.data.messages import to_messages, to_tools
from tunesmith.data.render import refuse_control_tokens, render
from tunesmith.errors import InvalidData
from tunesmith.types import Message


@dataclass(frozen=True)
class EncodedRow:
    """Token ids and, for each, whether the loss counts its prediction. Equal lengths; the first token never trains."""

    ids: list[int]
    loss_mask: list[bool]

    @property
    def num_trained(self) -> int:
        return sum(self.loss_mask)


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[dict[str, Any]] | None = None
) -> list[int]:
    """Ids of a conversation, ready for the assistant's next message. Raises InvalidData for messages that are not valid.

    A control token spelled in a message is refused, as in training: it would end the message, and let a tool's result or a
    web page speak in another role.
    """
    normal = to_messages(messages)
    refuse_control_tokens(tokenizer, normal)
    return piece_ids(tokenizer, render(tokenizer, normal, to_tools(tools), generate=True))


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of plain text, after the start token if the tokenizer adds one, without an end token."""
    return _start_ids(tokenizer) + piece_ids(tokenizer, text)


def encode(tokenizer: PreTrainedTokenizerBase, row: Row) -> list[EncodedRow]:
    """Ids and loss mask of one row. A KTO row trains its last answer. Raises InvalidData, with the reason as one sentence.

    Several where the template rewrites earlier messages: one for each answer that trains (see `answers.py`). A preference pair
    has two answers: use `encode_pair`.
    """
    if row.kind == "preference":
        raise InvalidData("A preference pair has two answers; it cannot be trained on as one.", hint="Use the method dpo.")
    if row.kind == "reinforcement":
        raise InvalidData("It has no answer to learn; a grader would have to judge one.", hint="Use reinforcement fine-tuning.")
    if row.segments:
        return [_encode_segments(tokenizer, row.segments)]
    if row.text is not None or row.completion is not None:
        return [_encode_text(tokenizer, row.text if row.text is not None else row.prompt or "", row.completion)]
    last = len(row.messages) - 1
    weights = [int(n == last) for n in range(last + 1)] if row.kind == "kto" else row.weights
    return encode_conversation(tokenizer, row.messages, row.tools, weights)


def encode_pair(tokenizer: PreTrainedTokenizerBase, row: Row) -> tuple[EncodedRow, EncodedRow]:
    """The chosen and the rejected answer of a preference pair, each after the prompt; only the answers train."""
    before = [0] * len(row.messages)
    chosen, rejected = (
        encode_conversation(tokenizer, row.messages + answer, row.tools, before + [1] * len(answer))
        for answer in (row.chosen, row.rejected)
    )
    if len(chosen) > 1 or len(rejected) > 1:
        raise InvalidData(
            "The base's chat template rewrites the earlier messages of an answer that is several messages.",
            hint="Split it into pairs whose answers are one message.",
        )
    return chosen[0], rejected[0]


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[dict[str, Any]], weights: list[int] | None = None
) -> list[EncodedRow]:
    """Ids and mask of a conversation; `weights` (0 or 1 for each message) leaves out answers. Raises InvalidData."""
    if any(has_image(message["content"]) for message in messages):
        raise InvalidData("It holds an image, which this base cannot see.")
    refuse_control_tokens(tokenizer, messages)
    return [_encode_rendered(tokenizer, whole) for whole in rendered(tokenizer, messages, tools, weights)]


def _encode_rendered(tokenizer: PreTrainedTokenizerBase, whole: Rendered) -> EncodedRow:
    return _by_offsets(tokenizer, *whole) or _by_pieces(tokenizer, *whole)


def piece_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text that is already rendered: nothing is added to it."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _by_offsets(tokenizer: PreTrainedTokenizerBase, text: str, spans: list[Span]) -> EncodedRow | None:
    """The full render's ids, if each prompt that the engine would see is a prefix of them; else None."""
    if not tokenizer.is_fast:
        return None
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    mask = [False] * len(ids)
    for span in spans:
        prompt = piece_ids(tokenizer, text[: span.start])
        if ids[: len(prompt)] != prompt:
            return None
        token = len(prompt)
        while token < len(ids) and offsets[token][0] < span.end:
            mask[token] = span.trains
            token += 1
    return _encoded(ids, mask)


def _by_pieces(tokenizer: PreTrainedTokenizerBase, text: str, spans: list[Span]) -> EncodedRow:
    """Ids cut where the engine cuts them, at prompt | answer, when a merge over that border hides it in the full render.

    An answer that begins with a line break is such a case. Raises InvalidData if the pieces do not spell the same text.
    """
    borders = sorted({0, len(text), *(span.start for span in spans), *(span.end for span in spans)})
    trained = {span.start for span in spans if span.trains}
    ids: list[int] = []
    mask: list[bool] = []
    for start, end in pairwise(borders):
        piece = piece_ids(tokenizer, text[start:end])
        ids += piece
        mask += [start in trained] * len(piece)
    if _spell(tokenizer, ids) != _spell(tokenizer, piece_ids(tokenizer, text)):
        raise InvalidData("The tokenizer writes prompt and answer otherwise when they stand alone, so the mask cannot be told.")
    return _encoded(ids, mask)


def _spell(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _encoded(ids: list[int], mask: list[bool]) -> EncodedRow:
    mask[:1] = [False] * len(mask[:1])
    if not any(mask):
        raise InvalidData("No token of it would be trained.")
    return EncodedRow(ids, mask)


def _start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The start token, if the tokenizer puts one before plain text."""
    return [token for token in tokenizer("")["input_ids"] if token == tokenizer.bos_token_id]


def _encode_text(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str | None) -> EncodedRow:
    """Plain text and the end token: all of it trains, or only the completion."""
    start = text_ids(tokenizer, prompt)
    rest = piece_ids(tokenizer, completion or "")
    end = [] if (start + rest)[-1:] == [tokenizer.eos_token_id] else [tokenizer.eos_token_id]
    ids = start + rest + end
    if completion is None:
        return _encoded(ids, [True] * len(ids))
    return _encoded(ids, [False] * len(start) + [True] * (len(ids) - len(start)))


def _encode_segments(tokenizer: PreTrainedTokenizerBase, segments: list[tuple[str, bool]]) -> EncodedRow:
    """Pieces of text that is rendered already: nothing is added, not even a start or an end token."""
    ids: list[int] = []
    mask: list[bool] = []
    for text, trains in segments:
        piece = piece_ids(tokenizer, text)
        ids += piece
        mask += [trains] * len(piece)
    return _encoded(ids, mask)
