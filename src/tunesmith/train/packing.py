"""Rows in one line without padding, each seeing only itself: which rows share a line, the line as a batch, and the attention.

A document of a line is a row, or a pair of rows that begin alike: what they share stands once, then the rest of the first, then
that of the second, which sees what they share and itself. Positions begin anew with each document, and after what is shared.
Tensor names carry their axes: T tokens of the line, D documents, N tokens that train.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tunesmith.data.chat_template import EncodedRow
from tunesmith.data.examples import Pair
from tunesmith.train.loss import IGNORED
from tunesmith.train.method import Batch

ATTENTION = "tunesmith_documents"
"""The name of `attend` among transformers' attention functions."""
CPU_TOKENS, GPU_TOKENS = 1024, 8192
"""Of a line, unless the recipe says otherwise (see ComputeRecipe.packing_length)."""
TRIED = ((3, 5, 0), (2, 4, 3), (6, 0, 0))
"""Documents with which it is tried whether a model keeps them apart."""


def lines(rows: Sequence[int], lengths: Sequence[int], *, tokens: int, most_rows: int) -> list[list[int]]:
    """`rows` in as few lines of at most `tokens` and `most_rows` as is easy, all about as long, for the longest costs the memory.

    The longest row goes first, each into the shortest line (longest processing time first, Graham 1969). A row longer than
    `tokens` has a line to itself.
    """
    sizes = dict(zip(rows, lengths, strict=True))
    ordered = sorted(rows, key=lambda row: (-sizes[row], row))
    count = max(1, -(-sum(lengths) // tokens), -(-len(rows) // most_rows))
    while True:
        found: list[list[int]] = [[] for _ in range(count)]
        totals = [0] * count
        for row in ordered:
            shortest = min(range(count), key=lambda line: (len(found[line]) >= most_rows, totals[line], line))
            found[shortest].append(row)
            totals[shortest] += sizes[row]
        if all(total <= tokens or len(line) == 1 for total, line in zip(totals, found, strict=True)):
            return [line for line in found if line]
        count += 1


def pack(rows: Sequence[EncodedRow], pad_id: int) -> Batch:
    """One line of rows: `input_ids`, `labels`, `position_ids` [1, T] and `documents` [D, 3]. Nothing is padded."""
    ids = torch.cat([torch.as_tensor(row.ids) for row in rows]).long()
    mask = torch.cat([torch.as_tensor(row.loss_mask) for row in rows]).bool()
    lengths = [len(row.ids) for row in rows]
    positions = torch.cat([torch.arange(length) for length in lengths])
    return {
        "input_ids": ids[None],
        "labels": ids.masked_fill(~mask, IGNORED)[None],
        "position_ids": positions[None],
        "documents": torch.tensor([[length, 0, 0] for length in lengths]),
    }


def pack_pairs(pairs: Sequence[Pair], pad_id: int) -> Batch:
    """One line of pairs, each prompt standing once: as `pack`, and `sources`, `targets`, `owners` [N] of the tokens that train.

    A source is the place whose hidden state foretells the token; rows are numbered first all chosen, then all rejected.
    """
    ids: list[int] = []
    positions: list[int] = []
    documents: list[tuple[int, int, int]] = []
    wanted: list[tuple[int, int, int]] = []
    for number, pair in enumerate(pairs):
        shared = num_shared(pair)
        start = len(ids)
        for row, owner in ((pair.chosen, number), (pair.rejected, len(pairs) + number)):
            tokens, mask = list(row.ids), list(row.loss_mask)
            skipped = len(ids) - start and shared
            # The first token after what is shared is foretold where the shared part ends.
            moved = len(ids) - skipped
            wanted += [
                (start + shared - 1 if place == shared else moved + place - 1, tokens[place], owner)
                for place in range(shared, len(tokens)) if mask[place]
            ]
            ids += tokens[skipped:]
            positions += range(skipped, len(tokens))
        documents.append((shared, len(pair.chosen.ids) - shared, len(pair.rejected.ids) - shared))
    sources, targets, owners = torch.tensor(wanted).T
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "documents": torch.tensor(documents),
        "sources": sources,
        "targets": targets,
        "owners": owners,
    }


def num_shared(pair: Pair) -> int:
    """Tokens with which both rows begin, none of which trains; at least one that stays before what differs."""
    most = min(next((place for place, trains in enumerate(row.loss_mask) if trains), 0) for row in (pair.chosen, pair.rejected))
    both = zip(pair.chosen.ids, pair.rejected.ids, strict=False)
    return next((place for place, (one, other) in enumerate(both) if place == most or one != other), most)


def num_packed(pair: Pair) -> int:
    """Tokens of the pair in a line."""
    return len(pair.chosen.ids) + len(pair.rejected.ids) - num_shared(pair)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    documents: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot product attention within each of `documents` [D, 3] (tokens shared, of the first branch, of the second).

    Without documents each line of the batch is one, padded on the right. transformers makes no masks for a function of this name.
    """
    whole = documents.tolist() if documents is not None else [(query.shape[2], 0, 0)]
    outputs, start = [], 0
    for shared, first, second in whole:
        length = shared + first
        seen = slice(start, start + length)
        outputs.append(_one(module, query[:, :, seen], key[:, :, seen], value[:, :, seen], sliding_window, kwargs))
        start += length
        if second:
            own = slice(start, start + second)
            both = [torch.cat([x[:, :, seen.start : seen.start + shared], x[:, :, own]], 2) for x in (key, value)]
            outputs.append(_one(module, query[:, :, own], *both, sliding_window, kwargs))
            start += second
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)), None


def _one(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None, kwargs: dict[str, Any]
) -> torch.Tensor:
    """[B, T, heads, size]. The queries are the last tokens of the keys; a mask is made only where causal alone is not enough."""
    asked, there = query.shape[2], key.shape[2]
    mask = None
    if asked < there or (window is not None and there > window):
        ago = torch.arange(there - asked, there, device=query.device)[:, None] - torch.arange(there, device=query.device)
        mask = (ago >= 0) & (ago < (window or there))
        mask = mask[None, None]
    return sdpa_attention_forward(module, query, key, value, mask, **kwargs)[0]


AttentionInterface.register(ATTENTION, attend)


def set_up(model: Any) -> bool:
    """Makes a transformers model ready for packed lines; False, and the model as it was, if it does not keep documents apart."""
    before = model.config._attn_implementation
    if before not in ("sdpa", ATTENTION):
        return False
    model.set_attn_implementation(ATTENTION)
    if _keeps_apart(model):
        return True
    model.set_attn_implementation(before)
    return False


@torch.no_grad()
def _keeps_apart(model: Any) -> bool:
    """Are the logits of packed rows those of the rows alone? Tried once; the tolerance is that of the weights' precision."""
    was_training = model.training
    model.eval()
    device = model.get_input_embeddings().weight.device
    rows, line, positions = [], [], []
    for number, (shared, first, second) in enumerate(TRIED):
        ids = [(7 * number + 3 * place) % 97 for place in range(shared + first + second)]
        line += ids
        positions += [*range(shared + first), *range(shared, shared + second)]
        rows += [ids[: shared + first]] + ([ids[:shared] + ids[shared + first :]] if second else [])
    told = {"position_ids": torch.tensor([positions], device=device), "documents": torch.tensor(TRIED, device=device)}
    packed = model(input_ids=torch.tensor([line], device=device), use_cache=False, **told).logits[0]
    alone = [model(input_ids=torch.tensor([row], device=device), use_cache=False).logits[0] for row in rows]
    model.train(was_training)
    wanted = torch.cat([logits[shared:] for logits, shared in zip(alone, _skipped(), strict=True)])
    share = 1e-4 if packed.dtype == torch.float32 else 0.05
    return bool((packed - wanted).abs().max() <= share * wanted.abs().max())


def _skipped() -> Iterable[int]:
    """Of each row of TRIED the tokens that stand in the line already."""
    for shared, _, second in TRIED:
        yield 0
        if second:
            yield shared

