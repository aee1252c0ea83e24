"""Packed rows give the loss and the gradients of the same rows padded, on several architectures."""

import random

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tunesmith.data.chat_template import EncodedRow
from tunesmith.data.examples import Pair
from tunesmith.train import head, loss, packing

from .bases import CONFIGS, make


def row(length, num_prompt, seed):
    ids = random.Random(seed).choices(range(2, 128), k=length)
    return EncodedRow(ids, [place >= num_prompt for place in range(length)])


ROWS = [row(20, 7, 1), row(33, 3, 2), row(9, 5, 3), row(14, 1, 4)]
PAIRS = [
    Pair(EncodedRow(one.ids[:cut] + other.ids[cut:], other.loss_mask), EncodedRow(one.ids, one.loss_mask))
    for one, other, cut in (
        (row(20, 7, 5), row(31, 7, 6), 7), (row(12, 4, 7), row(9, 4, 8), 3), (row(15, 6, 9), row(15, 6, 9), 15)
    )
]
"""Of different lengths; one whose prompts differ before the answers; one whose rows are equal."""


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request):
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    base = make(request.param).requires_grad_(False)
    assert packing.set_up(base)
    return get_peft_model(base, config)


def gradients(model, total):
    model.zero_grad()
    total.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def equal(mine, theirs):
    assert mine.keys() == theirs.keys() != set()
    for name, value in theirs.items():
        assert torch.allclose(mine[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()) + 1e-7), name


def test_packed_rows_have_the_loss_and_the_gradients_of_padded_ones(model):
    packed = loss.token_loss(model, packing.pack(ROWS, 0), fused_head=False)
    mine = gradients(model, packed.nll_sum)
    padded = loss.token_loss(model, loss.collate(ROWS, 0), fused_head=False)
    assert packed.nll_sum.item() == pytest.approx(padded.nll_sum.item(), rel=1e-5)
    assert (int(packed.num_tokens), int(packed.num_right)) == (int(padded.num_tokens), int(padded.num_right))
    equal(mine, gradients(model, padded.nll_sum))


def by_row(found, weights):
    """Each row's sum, and one number in which every row counts otherwise."""
    sums = torch.zeros(len(weights)).index_add(0, found.owners_N, found.logps_N)
    return sums.detach(), (sums * weights).sum()


def test_pairs_whose_prompt_stands_once_score_as_rows_of_their_own(model):
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, 0.25])
    rows = [pair.chosen for pair in PAIRS] + [pair.rejected for pair in PAIRS]
    mine, weighed = by_row(loss.score(model, packing.pack_pairs(PAIRS, 0), fused_head=False), weights)
    my_gradients = gradients(model, weighed)
    theirs, weighed = by_row(loss.score(model, loss.collate(rows, 0), fused_head=False), weights)
    assert torch.allclose(mine, theirs, rtol=1e-5)
    equal(my_gradients, gradients(model, weighed))


def test_a_pair_shares_no_token_that_trains_nor_one_that_differs():
    assert [packing.num_shared(pair) for pair in PAIRS] == [7, 3, 6]
    assert [packing.num_packed(pair) for pair in PAIRS] == [44, 18, 24]
    assert packing.pack_pairs(PAIRS, 0)["input_ids"].shape == (1, 44 + 18 + 24)


@torch.no_grad()
def test_trls_head_scores_packed_rows_alike():
    from trl.trainer.utils import add_fused_lm_head

    model = make("llama")
    assert packing.set_up(model)
    add_fused_lm_head(model, outputs=("log_probs", "is_top1"))
    ours = loss.score(model, packing.pack(ROWS, 0), fused_head=False)
    trls = loss.score(model, packing.pack(ROWS, 0), fused_head=True)
    assert torch.allclose(ours.logps_N, trls.logps_N, rtol=1e-4, atol=1e-5)
    assert ours.owners_N.equal(trls.owners_N)
    assert ours.right_N.equal(trls.right_N.bool())


@torch.no_grad()
def test_padded_rows_of_a_model_that_is_set_up_are_what_they_were():
    for name in CONFIGS:
        before = make(name)
        after = make(name)
        assert packing.set_up(after)
        batch = loss.collate(ROWS, 0)
        wanted, found = (loss.score(model, batch, fused_head=False).logps_N for model in (before, after))
        assert torch.allclose(wanted, found, rtol=1e-5, atol=1e-6), name


def test_a_model_that_mixes_rows_of_a_line_is_left_as_it_was(monkeypatch):
    model = make("llama")
    hear_all = lambda module, args, kwargs: (args, {k: v for k, v in kwargs.items() if k != "documents"})  # noqa: E731
    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(hear_all, with_kwargs=True)
    assert not packing.set_up(model)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("name", "plain"), [("llama", True), ("gpt_neox", True), ("gemma3", True), ("capped", False)])
def test_a_head_whose_logits_are_capped_is_not_taken_for_a_plain_one(name, plain):
    assert head.counts_hidden_states(make(name)) == plain


def test_a_head_that_trains_learns_the_same_slice_by_slice(monkeypatch):
    monkeypatch.setattr(head, "MAX_LOGITS", 1)  # slices of 16 tokens
    model = make("gpt_neox")
    packed = loss.token_loss(model, packing.pack(ROWS, 0), fused_head=False)
    mine = gradients(model, packed.nll_sum)
    model.zero_grad()
    total = 0.0
    for one in ROWS:
        ids = torch.tensor([one.ids])
        labels = ids.masked_fill(~torch.tensor([one.loss_mask]), -100)
        total = total + model(input_ids=ids, labels=labels).loss * sum(one.loss_mask)
    assert packed.nll_sum.item() == pytest.approx(total.item(), rel=1e-5)
    equal(mine, gradients(model, total))


def test_the_logits_of_all_tokens_never_exist(monkeypatch):
    monkeypatch.setattr(head, "MAX_LOGITS", 1)
    shapes = set()

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.shape[-1:] == (128,) and out._base is None:
                shapes.add(out[..., 0].numel())
            return out

    model = make("gpt_neox").requires_grad_(False)
    with Watch():
        loss.token_loss(model, packing.pack(ROWS, 0), fused_head=False)
    assert max(shapes) <= head.MIN_SLICE


def test_lines_are_few_and_about_as_long_and_hold_each_row_once():
    lengths = [random.Random(seed).randint(10, 400) for seed in range(64)]
    found = packing.lines(range(64), lengths, tokens=1024, most_rows=64)
    totals = [sum(lengths[row] for row in line) for line in found]
    assert sorted(row for line in found for row in line) == list(range(64))
    assert len(found) <= -(-sum(lengths) // 1024) + 1
    assert max(totals) <= 1024
    assert min(totals) > 0.85 * max(totals)
    assert [len(line) for line in packing.lines(range(5), [2000, 10, 10, 10, 10], tokens=1024, most_rows=2)] == [1, 2, 2]
