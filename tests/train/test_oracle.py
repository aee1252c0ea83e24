"""Our losses and gradients are those of TRL's own padded path, on 64 rows of many lengths."""

import pytest
import torch
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from tunesmith.data.chat_template import EncodedRow
from tunesmith.data.examples import Pair
from tunesmith.data.skills import generate
from tunesmith.recipes.auto import resolve
from tunesmith.train import dpo, kto, orpo, packing, reward

from .oracle import TOKENIZER, examples, gradients, ours, parts, recipe, trl

SKILLS = ("copy", "reverse", "capitalize", "largest")
NUMBER = 64


def rows_of(skills=SKILLS, number=NUMBER):
    """Prompt, another question's answer, and its own, of many lengths: the base prefers what is rejected; gradients are large."""
    items = [item for skill in skills for item in generate(skill, number // len(skills) + 5, 5)]
    return [
        {"prompt": item.messages, "chosen": [other.answer], "rejected": [item.answer]}
        for item, other in zip(items, items[1:], strict=False)
        if item.answer["content"] != other.answer["content"]
    ][:number]


def full(asked):
    return resolve(asked, hidden_size=192, num_rows=NUMBER, max_positions=512)


def same(model, theirs, method, rows, asked, *, micro=NUMBER):
    """Our loss and every gradient, padded and packed, within 1e-5 of TRL's (of gradients above 1, of their size)."""
    two = gradients(model, theirs)
    assert len(two) > 10
    assert max(value.abs().max().item() for value in two.values()) > 1e-3
    assert method.pack is None or packing.set_up(model.get_base_model())
    for packed in (False, True) if method.pack else (False,):
        mine = ours(method, model, rows, asked, micro, packed=packed)
        assert mine.item() == pytest.approx(theirs.item(), abs=1e-5)
        one = gradients(model, mine)
        assert one.keys() == two.keys()
        for name, value in two.items():
            assert (one[name] - value).abs().max().item() <= 1e-5 * max(1.0, value.abs().max().item()), (name, packed)


@pytest.fixture
def pairs(tmp_path):
    found = examples(tmp_path, rows_of(), full(recipe(type="dpo")))
    assert len(found) == NUMBER
    assert len({len(pair.chosen.ids) for pair in found}) > 10
    return found


def pair_columns(pairs):
    sides = [(parts(pair.chosen), parts(pair.rejected)) for pair in pairs]
    return {
        "prompt_ids": [chosen[0] for chosen, _ in sides],
        "chosen_ids": [chosen[1] for chosen, _ in sides],
        "rejected_ids": [rejected[1] for _, rejected in sides],
    }


class Encoded(DPOTrainer):
    def _prepare_dataset(self, dataset, *_):
        return dataset


class EncodedKto(KTOTrainer):
    def _prepare_dataset(self, dataset, *_):
        return dataset


DPO = [("sigmoid", "sigmoid", {}), ("sigmoid", "robust", {"label_smoothing": 0.2}), ("ipo", "ipo", {})]


@pytest.mark.parametrize(("loss", "theirs", "options"), DPO, ids=[theirs for _, theirs, _ in DPO])
def test_dpo_is_trls(tmp_path, pairs, loss, theirs, options):
    columns = pair_columns(pairs)
    trainer = trl(Encoded, DPOConfig, columns, tmp_path, loss_type=[theirs], beta=0.1, max_length=None, **options)
    asked = full(recipe(type="dpo", loss=loss, **options))
    trainer.model.eval()
    same(trainer.model, trainer.compute_loss(trainer.model, batch_of(trainer, columns)), dpo.METHOD, pairs, asked, micro=24)


def batch_of(trainer, columns):
    return trainer.data_collator([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])


def test_kto_is_trls_with_its_mismatched_rows_and_its_weights(tmp_path):
    rows = [
        {"prompt": row["prompt"], "completion": row["rejected" if number % 3 else "chosen"], "label": number % 3 == 0}
        for number, row in enumerate(rows_of())
    ]
    options = {"beta": 0.2, "desirable_weight": 1.3, "undesirable_weight": 0.7}
    asked = full(recipe(type="kto", **options))
    found = examples(tmp_path, rows, asked)
    split = [parts(example.row) for example in found]
    answers = [answer for _, answer in split]
    columns = {
        "prompt_ids": [prompt for prompt, _ in split],
        "completion_ids": answers,
        "KL_completion_ids": answers[-1:] + answers[:-1],
        "label": [example.label for example in found],
    }
    trainer = trl(EncodedKto, KTOConfig, columns, tmp_path, max_length=None, **options)
    trainer.model.eval()
    theirs = trainer.compute_loss(trainer.model, batch_of(trainer, columns))
    assert trainer._metrics["eval"]["kl"][0] > 0.01, "the reference point must be felt"
    same(trainer.model, theirs, kto.METHOD, found, asked)


def concatenated(pairs):
    """A batch as TRL's ORPO and CPO trainers make it."""
    batch = {}
    for side in ("chosen", "rejected"):
        rows = [parts(getattr(pair, side)) for pair in pairs]
        width = max(len(prompt) + len(answer) for prompt, answer in rows)
        ids, mask, labels = (torch.full((len(rows), width), fill) for fill in (TOKENIZER.pad_token_id, 0, -100))
        for number, (prompt, answer) in enumerate(rows):
            size = len(prompt) + len(answer)
            ids[number, :size], mask[number, :size] = torch.tensor(prompt + answer), 1
            labels[number, len(prompt) : size] = torch.tensor(answer)
        batch |= {f"{side}_input_ids": ids, f"{side}_attention_mask": mask, f"{side}_labels": labels}
    return batch


def test_reward_is_trls_with_its_centring(tmp_path, pairs):
    columns = {
        side: [getattr(pair, side.removesuffix("_ids")).ids for pair in pairs] for side in ("chosen_ids", "rejected_ids")
    }
    options = {"center_rewards_coefficient": 0.05}
    trainer = trl(RewardTrainer, RewardConfig, columns, tmp_path, head="score", max_length=None, **options)
    trainer.model.eval()
    theirs = trainer.compute_loss(trainer.model, batch_of(trainer, columns))
    same(trainer.model, theirs, reward.METHOD, pairs, full(recipe(type="reward", **options)), micro=24)


TEXT = {"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]}


def test_simpo_is_that_of_trls_cpo_trainer(tmp_path, pairs):
    options = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 1.0}
    trainer = trl(CPOTrainer, CPOConfig, TEXT, tmp_path, max_length=512, **options)
    trainer.model.eval()
    theirs, _ = trainer.get_batch_loss_metrics(trainer.model, concatenated(pairs))
    same(trainer.model, theirs, dpo.METHOD, pairs, full(recipe(type="dpo", loss="simpo")), micro=24)


def test_orpo_is_trls_where_a_prompt_has_nothing_to_train(tmp_path, pairs):
    """TRL's counts the prompt's tokens among those that are learned, so here the prompt is one token, which nothing predicts."""
    bare = [
        Pair(*(EncodedRow([5, *parts(row)[1]], [False] + [True] * len(parts(row)[1])) for row in (pair.chosen, pair.rejected)))
        for pair in pairs
    ]
    trainer = trl(ORPOTrainer, ORPOConfig, TEXT, tmp_path, max_length=512, beta=0.1)
    trainer.model.eval()
    theirs, _ = trainer.get_batch_loss_metrics(trainer.model, concatenated(bare))
    same(trainer.model, theirs, orpo.METHOD, bare, full(recipe(type="orpo")))
