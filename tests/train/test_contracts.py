"""What we rely on in TRL and transformers, one promise a test: a new version that breaks one is told here, by name."""

import inspect

import pytest
from peft import PeftModel
from transformers import Trainer
from trl import DPOTrainer, KTOTrainer, RewardTrainer, SFTTrainer
from trl.experimental.orpo import ORPOTrainer

from tunesmith.data.chat_template import EncodedRow
from tunesmith.data.examples import Judged, Pair
from tunesmith.models.loader import load_base
from tunesmith.recipes.auto import resolve
from tunesmith.recipes.method import METHODS
from tunesmith.train import dpo, kto, orpo, reward, sft
from tunesmith.train.method import Work
from tunesmith.train.trainer import Exact

from .oracle import BASE, TOKENIZER, recipe

ROW = EncodedRow([5, 6, 7, 8], [False, False, True, True])
PAIR = Pair(ROW, EncodedRow([5, 6, 9, 8], [False, False, True, True]))
OURS = {
    "sft": (sft.METHOD, SFTTrainer, ROW),
    "dpo": (dpo.METHOD, DPOTrainer, PAIR),
    "kto": (kto.METHOD, KTOTrainer, Judged(ROW, True)),
    "orpo": (orpo.METHOD, ORPOTrainer, PAIR),
    "reward": (reward.METHOD, RewardTrainer, PAIR),
}
HOOKS = {
    "get_train_dataloader": set(), "get_batch_samples": {"epoch_iterator", "num_batches", "device"},
    "training_step": {"model", "inputs", "num_items_in_batch"},
    "compute_loss": {"model", "inputs", "return_outputs", "num_items_in_batch"}, "create_optimizer": {"model"},
    "create_scheduler": {"num_training_steps", "optimizer"}, "log": {"logs", "start_time"}, "floating_point_ops": {"inputs"},
}
"""What `Exact` overrides -> the names by which transformers' loop gives it arguments."""


@pytest.fixture(scope="module", params=OURS)
def made(request, tmp_path_factory):
    method, theirs, example = OURS[request.param]
    asked = resolve(recipe(type=request.param), hidden_size=256, num_rows=2, max_positions=64)
    work = Work(asked, BASE, [example] * 2, 2, [[0, 1]], str(tmp_path_factory.mktemp("scratch")), "cpu")
    base = load_base(BASE, "none", head=method.head)
    return method.trainer(base, TOKENIZER, work, method, None, lambda done: False), theirs, base


def test_there_is_a_contract_for_every_method():
    assert OURS.keys() == METHODS.keys()


def test_trls_constructor_takes_an_encoded_row_and_a_peft_configuration(made):
    trainer, theirs, _ = made
    assert isinstance(trainer, theirs)
    assert isinstance(trainer, Exact)
    assert isinstance(trainer.model, PeftModel)


def test_trls_trainer_has_the_learning_rate_and_the_steps_that_were_asked_for(made):
    args = made[0].args
    method = made[0]._work.recipe.method
    assert (args.learning_rate, args.max_steps, args.weight_decay) == (method.learning_rate, 1, method.weight_decay)
    assert (args.bf16, args.fp16, args.save_strategy, args.eval_strategy, args.report_to) == (False, False, "no", "no", [])


def test_there_is_one_copy_of_the_base_and_it_is_the_one_that_was_given(made):
    trainer, _, base = made
    assert trainer.model.get_base_model() is base
    assert getattr(trainer, "ref_model", None) is None
    assert list(trainer.model.peft_config) == ["default"]


def test_only_the_adapter_and_a_head_train(made):
    trained = [name for name, parameter in made[0].model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name or "score.modules_to_save" in name for name in trained)


@pytest.mark.parametrize("trainer", [DPOTrainer, KTOTrainer])
def test_the_rows_given_to_the_constructor_pass_through_the_hook_that_we_override(trainer):
    assert "_prepare_dataset" in vars(trainer)
    assert "self._prepare_dataset(train_dataset" in inspect.getsource(trainer.__init__)


@pytest.mark.parametrize("trainer", [theirs for _, theirs, _ in OURS.values()])
def test_trls_loop_is_transformers_with_the_hooks_that_exact_overrides(trainer):
    assert issubclass(trainer, Trainer)
    for name, wanted in HOOKS.items():
        assert wanted <= set(inspect.signature(getattr(Trainer, name)).parameters), name


def test_everything_that_exact_overrides_is_a_hook_of_transformers():
    ours = {name for name, value in vars(Exact).items() if inspect.isfunction(value) and hasattr(Trainer, name)}
    assert ours == {"__init__", *HOOKS}
