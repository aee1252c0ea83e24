import pytest
import torch

from tunesmith.data.chat_template import EncodedRow
from tunesmith.models.catalog import find_base
from tunesmith.models.loader import load_base
from tunesmith.recipes.run import parse
from tunesmith.train import sft
from tunesmith.train.measure import measure
from tunesmith.train.method import Work

from .test_loss import ROWS, by_hand


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [4, 1])
def test_each_token_of_the_held_out_rows_is_counted_once_and_the_model_left_as_it_was(batch_size):
    base = find_base("tunesmith/tiny")
    model = load_base(base, "none")
    rows: list[EncodedRow] = ROWS * 3
    work = Work(parse({"data": {"train": "t.jsonl"}}), base, rows, len(rows), [], "", "cpu")
    found = measure(sft.METHOD, model, rows, work, batch_size=batch_size, pad_id=0)
    total, count = by_hand(model, rows)
    assert found["loss"] == pytest.approx(total / count, rel=1e-5)
    assert 0 <= found["token_accuracy"] <= 1
    assert not model.training
