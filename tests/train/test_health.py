"""A loss that is no number, or that explodes, ends a run with advice and its checkpoints; what only looks like it does not."""

import pytest

from tunesmith.errors import TrainingFailed
from tunesmith.train import sft
from tunesmith.train.health import WINDOW_STEPS, Health

from .small import Recorder, make_folder


def health(losses):
    found = Health(0.003)
    for step, loss in enumerate(losses, start=1):
        found.check(step, loss, 1.0)
    return found


@pytest.mark.parametrize("numbers", [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan"))])
def test_a_loss_or_gradient_that_is_no_number_is_told_with_a_rate_to_try(numbers):
    with pytest.raises(TrainingFailed, match="no number any more at step 3") as caught:
        Health(0.003).check(3, *numbers)
    assert caught.value.code == "loss_not_finite"
    assert "1.0e-03" in caught.value.hint


def test_a_loss_that_stays_far_above_its_begin_has_exploded():
    with pytest.raises(TrainingFailed, match="exploded at step") as caught:
        health([2.0] * WINDOW_STEPS + [9.0] * WINDOW_STEPS)
    assert caught.value.code == "loss_exploded"


@pytest.mark.parametrize(
    "losses",
    [
        [2.0] * 100,
        [0.05] * WINDOW_STEPS + [0.9] * 100,
        [2.0, 30.0, 2.0, 2.0] * 50,
        [0.7] * WINDOW_STEPS + [0.1, 4.0] * 50,
        [9.0, 8.0] * 10,
    ],
)
def test_a_bad_step_or_a_small_rise_is_none(losses):
    health(losses)


def test_it_goes_on_from_a_checkpoint_with_what_it_knew():
    begun = health([2.0] * (WINDOW_STEPS + 5))
    resumed = Health(0.003)
    resumed.restore(begun.state())
    assert resumed == begun


@pytest.mark.slow
def test_an_absurd_rate_ends_a_run_with_advice_and_the_state_is_kept(tmp_path):
    changes = {"method": {"epochs": 14, "learning_rate": 0.9, "learning_rate_multiplier": 100}, "adapter": {"dropout": 0.0}}
    folder, recorder = make_folder(tmp_path / "run", **changes), Recorder()
    with pytest.raises(TrainingFailed) as caught:
        sft.run(folder.recipe(), folder, recorder.tools())
    assert caught.value.code in {"loss_not_finite", "loss_exploded"}
    assert "it was 9.0e+01; try 3.0e+01" in caught.value.hint
    assert len(recorder.of("step")) < 42
    assert [path.name for path in folder.checkpoints.iterdir()] != []
