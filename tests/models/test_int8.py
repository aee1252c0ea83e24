"""An int8 base is near the full one, gives a row what it has alone, and lets gradients through."""

import pytest
import torch

from tunesmith.models.catalog import find_base
from tunesmith.models.int8 import Int8Linear
from tunesmith.models.loader import load_base

IDS = torch.randint(10, 4000, (3, 40), generator=torch.Generator().manual_seed(0))


def logprobs(model, ids):
    return torch.log_softmax(model(input_ids=ids).logits, -1)


@torch.no_grad()
def test_an_int8_base_is_nearer_to_the_full_one_than_nf4_and_sees_no_neighbours():
    base = find_base("tunesmith/tiny")
    full, nf4, int8 = (load_base(base, quantization) for quantization in ("none", "nf4", "int8"))
    expected = logprobs(full, IDS)
    mine, theirs = ((expected.exp() * (expected - logprobs(model, IDS))).sum(-1).mean() for model in (int8, nf4))
    assert 0 < mine < 0.05 * theirs
    whole = logprobs(int8, IDS)
    assert torch.allclose(whole[:1], logprobs(int8, IDS[:1]), atol=1e-4)
    assert torch.allclose(whole[:, :20], logprobs(int8, IDS[:, :20]), atol=1e-4)
    kept = [name for name, layer in int8.named_modules() if type(layer) is torch.nn.Linear]
    assert kept == ["lm_head"]


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_layer_multiplies_by_the_weight_that_it_shows(has_bias):
    torch.manual_seed(0)
    layer = Int8Linear(torch.nn.Linear(16, 8, bias=has_bias))
    x = torch.randn(5, 16, requires_grad=True)
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    mine = layer(x)
    assert torch.allclose(mine, expected, atol=1e-6)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (mine, expected)]
    assert torch.allclose(*grads, atol=1e-5)
    assert layer.whole.dtype == torch.int8
    assert {name for name, _ in layer.named_parameters()} <= {"bias"}
