import pytest
import torch

from tunesmith.data.chat_template import EncodedRow
from tunesmith.models.catalog import find_base
from tunesmith.models.loader import load_base
from tunesmith.train.loss import IGNORED, collate, token_loss

ROWS = [
    EncodedRow([5, 6, 7, 8], [False, False, True, True]),
    EncodedRow([9, 10, 11, 12, 13, 14], [False, False, True, False, False, True]),
]


@pytest.fixture(scope="module")
def model():
    return load_base(find_base("tunesmith/tiny"), "none")


def by_hand(model, rows):
    """One row at a time, all logits, token after token."""
    total, count = 0.0, 0
    for row in rows:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        for place, trains in enumerate(row.loss_mask):
            if trains:
                total -= logits[place - 1, row.ids[place]].item()
                count += 1
    return total, count


def test_padding_and_untrained_tokens_have_no_label():
    batch = collate(ROWS, pad_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 0, 0], [9, 10, 11, 12, 13, 14]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 7, 8, IGNORED, IGNORED], [IGNORED, IGNORED, 11, IGNORED, IGNORED, 14]]


@torch.no_grad()
def test_the_loss_of_a_padded_batch_is_that_of_its_rows_alone(model):
    found = token_loss(model, collate(ROWS, pad_id=0), fused_head=False)
    total, count = by_hand(model, ROWS)
    assert int(found.num_tokens) == count == 4
    assert found.nll_sum.item() == pytest.approx(total, rel=1e-5)
