"""Before the first step a run knows whether it fits and is cut so that it does, without a bit of it changing."""

import pytest
import torch

from tunesmith.errors import InvalidRecipe
from tunesmith.train import sft
from tunesmith.train.forecast import fit
from tunesmith.train.peak import PeakBytes

from .small import Recorder, make_folder

PADDED = {"compute": {"packing": False}}
FULL = {"adapter": {"type": "full", "rank": None}}


def run(folder, recorder=None):
    recorder = recorder or Recorder()
    return sft.run(folder.recipe(), folder, recorder.tools()), recorder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(make_folder(tmp_path_factory.mktemp("plain") / "run"))


def limited(tmp_path, gib, **compute):
    return make_folder(tmp_path / "run", compute={"packing": False, "memory_gib": gib, **compute})


def test_a_run_tells_its_plan_and_in_the_end_what_came_of_it(plain):
    result, recorder = plain
    (told,) = recorder.of("plan")
    assert told["step"] == 0
    assert told["cut"] == {"micro_batch_size": 4, "packing_length": 1024, "recompute": "none"}
    foretold, actual = result["plan"]["foretold"], result["plan"]["actual"]
    assert foretold["memory_bytes"] == pytest.approx(actual["memory_bytes"], rel=0.1)
    assert 0 < actual["hours"] < 1
    assert 0 < actual["utilisation"] < 1
    assert actual["usd"] is None


def test_short_memory_takes_smaller_batches_and_then_recomputes(tmp_path):
    result, recorder = run(limited(tmp_path, 0.0197))
    cut = recorder.of("plan")[0]["cut"]
    assert cut["micro_batch_size"] < 4 or cut["recompute"] != "none"
    assert result["plan"]["actual"]["memory_bytes"] <= 0.0197 * 1024**3


def test_what_fits_nowhere_is_refused_with_what_would(tmp_path):
    with pytest.raises(InvalidRecipe, match="does not fit: .* needs .* MiB, and 10 MiB are there") as refused:
        run(limited(tmp_path, 0.01))
    assert refused.value.code == "does_not_fit"
    assert "on RTX3060, A10" in refused.value.hint


def test_what_a_recipe_says_is_kept(tmp_path):
    _, recorder = run(make_folder(tmp_path / "run", compute={"recompute": 2, "packing_length": 256}))
    assert recorder.of("plan")[0]["cut"] == {"micro_batch_size": 4, "packing_length": 256, "recompute": 2}


def test_a_resumed_run_keeps_its_cut_whatever_the_memory_is(tmp_path, plain):
    folder = make_folder(tmp_path / "run")
    run(folder, Recorder(stop_after=3))
    recipe = folder.recipe()
    tighter = recipe.model_copy(update={"compute": recipe.compute.model_copy(update={"recompute": "all"})})
    second = Recorder()
    result = sft.run(tighter, folder, second.tools())
    assert second.of("plan")[0]["cut"] == plain[1].of("plan")[0]["cut"]
    assert result["metrics"] == plain[0]["metrics"]


def test_dollars_are_told_where_the_machine_has_a_price(tmp_path):
    result, _ = run(make_folder(tmp_path / "run", compute={"usd_per_hour": 2.0}))
    actual = result["plan"]["actual"]
    assert actual["usd"] == pytest.approx(2 * actual["hours"])


def test_seconds_are_a_constant_and_so_much_for_each_cost():
    assert fit([1, 2, 4], [3, 5, 9]) == pytest.approx((1, 2))
    assert fit([2, 2, 2], [3, 4, 5]) == pytest.approx((0, 2))
    assert fit([1, 2, 3], [3, 2, 1]) == pytest.approx((0, 1))


def test_bytes_are_counted_as_tensors_come_and_go():
    kept = torch.zeros(1000)
    with PeakBytes([kept]) as watched:
        one = torch.ones(2000)
        del one
        two = kept.view(10, 100)
        three = torch.ones(1000) + 1
    assert watched.now == kept.nbytes + three.nbytes
    assert watched.peak == kept.nbytes + 2000 * 4
    assert two.shape == (10, 100)
