"""Runs in this process on the built-in base: what a run tells, where it stops, and that resuming is exact."""

import pytest
from results import timeless
from safetensors.torch import load_file

from tunesmith.errors import Fenced, InvalidData, InvalidRecipe, NotFound, TrainingFailed
from tunesmith.models.artifact import read_adapter
from tunesmith.train import sft
from tunesmith.train.tools import Tools

from .small import Recorder, make_folder

pytestmark = pytest.mark.slow


def run(folder, recorder):
    return sft.run(folder.recipe(), folder, recorder.tools())


def adapter(folder):
    return load_file(folder.artifacts / "adapter" / "adapter_model.safetensors")


@pytest.fixture
def small(tmp_path):
    return lambda name="run", **changes: make_folder(tmp_path / name, **changes)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run from start to end, and what it told."""
    folder, recorder = make_folder(tmp_path_factory.mktemp("straight") / "run"), Recorder()
    return folder, recorder, run(folder, recorder)


def test_a_run_tells_each_step_once_and_learns(straight):
    folder, recorder, result = straight
    steps = recorder.of("step")
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert {"total_steps", "epoch", "loss", "learning_rate", "grad_norm", "tokens_seen", "tokens_per_second", "memory_bytes",
            "eta_seconds", "token_accuracy"} <= set(steps[0])
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert steps[-1]["epoch"] == 2
    assert steps[-1]["tokens_seen"] == result["trained_tokens"] == 2 * result["data"]["tokens"]["total"]
    assert steps[-1]["eta_seconds"] == 0
    assert [event["phase"] for event in recorder.of("phase")][:3] == ["data", "loading", "evaluating"]


def test_the_held_out_loss_is_measured_before_within_and_after(straight):
    _, recorder, result = straight
    measured = recorder.of("eval")
    assert [event["step"] for event in measured] == [0, 3, 6]
    assert result["metrics"]["eval_loss_before"] == measured[0]["loss"]
    assert result["metrics"]["eval_loss"] == measured[-1]["loss"] < measured[0]["loss"]


def test_the_result_names_a_valid_adapter_and_checkpoint(straight):
    folder, _, result = straight
    info = read_adapter(folder.root / result["adapter"]["path"])
    assert info.content_hash == result["adapter"]["content_hash"]
    assert (info.rank, info.alpha, info.base, info.quantization) == (4, 8.0, "tunesmith/tiny", "none")
    assert (folder.root / result["checkpoint"] / "manifest.json").exists()
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-4", "step-6"]


def test_each_epoch_leaves_an_adapter_to_be_served_told_before_the_checkpoint_of_its_step(straight):
    folder, recorder, result = straight
    told = recorder.of("adapter")
    assert [(event["step"], event["path"]) for event in told] == [(3, "artifacts/step-3"), (6, "artifacts/step-6")]
    assert [read_adapter(folder.root / event["path"]).content_hash for event in told] == [event["content_hash"] for event in told]
    assert told[0]["content_hash"] != told[1]["content_hash"] == result["adapter"]["content_hash"]
    order = [event["type"] for event in recorder.events if event["type"] in {"adapter", "checkpoint"} and event["step"] == 6]
    assert order == ["adapter", "checkpoint"]


def test_of_many_epochs_only_the_newest_adapters_stay(small):
    folder = small(method={"epochs": 5}, checkpoints={"adapters": 1})
    run(folder, Recorder())
    assert sorted(path.name for path in folder.artifacts.iterdir()) == ["adapter", "step-12", "step-15"]


def test_the_numbers_that_were_left_open_are_told_when_training_begins(straight):
    _, recorder, result = straight
    (begun,) = [event for event in recorder.of("phase") if event["phase"] == "training"]
    assert begun["hyperparameters"] == result["hyperparameters"]


def test_nothing_that_could_be_pickle_is_written(straight):
    folder, _, _ = straight
    assert {path.suffix for path in folder.root.rglob("*") if path.is_file()} == {".json", ".jsonl", ".safetensors"}


@pytest.mark.parametrize("stop_after", [3, 4])
def test_a_paused_run_goes_on_and_ends_bit_for_bit_the_same(small, straight, stop_after):
    folder, first, second = small(), Recorder(stop_after=stop_after), Recorder()
    assert run(folder, first) is None
    assert first.events[-1] == {"type": "paused", "step": stop_after}
    result = run(folder, second)
    assert second.of("resumed") == [{"type": "resumed", "step": stop_after}]
    assert [step["step"] for step in second.of("step")] == list(range(stop_after + 1, 7))
    whole_folder, whole, whole_result = straight
    mine, theirs = adapter(folder), adapter(whole_folder)
    assert all(mine[name].equal(theirs[name]) for name in theirs)
    assert [s["loss"] for s in first.of("step") + second.of("step")] == [s["loss"] for s in whole.of("step")]
    assert timeless(result) == timeless(whole_result)


def test_a_cancelled_run_stops_at_once_and_publishes_nothing(small):
    folder, recorder = small(), Recorder(stop_after=3, wanted="cancel")
    assert run(folder, recorder) is None
    assert recorder.events[-1] == {"type": "cancelled", "step": 3}
    assert list(folder.artifacts.iterdir()) == []


def test_a_fenced_run_stops_before_it_tells_the_step(small):
    folder, recorder = small(), Recorder()

    def fenced():
        if len(recorder.of("step")) == 2:
            raise Fenced("Attempt 2 holds the lease.")

    with pytest.raises(Fenced):
        sft.run(folder.recipe(), folder, Tools(recorder.emit, fenced, None))
    assert len(recorder.of("step")) == 2
    assert list(folder.artifacts.iterdir()) == []


def test_a_torn_checkpoint_is_told_and_the_one_before_it_is_used(small, straight):
    folder = small()
    assert run(folder, Recorder(stop_after=4)) is None
    weights = folder.checkpoints / "step-4" / "adapter.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    recorder = Recorder()
    result = run(folder, recorder)
    assert "step-4" in recorder.of("warning")[0]["message"]
    assert recorder.of("resumed") == [{"type": "resumed", "step": 2}]
    assert timeless(result) == timeless(straight[2])


def test_a_run_does_not_go_on_with_other_rows(small):
    folder = small()
    assert run(folder, Recorder(stop_after=4)) is None
    rows = (folder.root / "train.jsonl").read_text().splitlines(keepends=True)
    (folder.root / "train.jsonl").write_text("".join(reversed(rows)))
    with pytest.raises(TrainingFailed, match="has changed: the rows"):
        run(folder, Recorder())


def test_micro_batches_make_the_same_step(small, straight):
    folder, recorder = small(method={"micro_batch_size": 2}, adapter={"dropout": 0.0}), Recorder()
    whole_folder, whole = small("whole", adapter={"dropout": 0.0}), Recorder()
    run(folder, recorder)
    run(whole_folder, whole)
    losses = [[step["loss"] for step in told.of("step")] for told in (recorder, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def losses(recorder):
    return [step["loss"] for step in recorder.of("step")]


def test_packed_padded_and_recomputed_steps_are_the_same_steps(small):
    told = {}
    for name, compute in {
        "padded": {"packing": False}, "packed": {"packing": True, "packing_length": 256},
        "recomputed": {"recompute": "all"}, "half": {"recompute": 2},
    }.items():
        told[name] = Recorder()
        run(small(name, compute=compute, adapter={"dropout": 0.0}), told[name])
    for name, recorder in told.items():
        assert losses(recorder) == pytest.approx(losses(told["padded"]), rel=1e-4), name


def test_moments_of_eight_bits_resume_exactly(small):
    eight = {"compute": {"optimizer": "adamw_8bit"}, "adapter": {"rank": 32}}  # smaller tensors keep four bytes
    whole, parts = (small(name, **eight) for name in ("whole", "parts"))
    result = run(whole, Recorder())
    assert run(parts, Recorder(stop_after=3)) is None
    assert timeless(run(parts, Recorder())) == timeless(result)
    saved = load_file(whole.checkpoints / "step-6" / "optimizer.safetensors")
    assert {str(value.dtype) for name, value in saved.items() if name.endswith("|state1")} == {"torch.uint8"}


def test_what_the_machine_cannot_do_is_refused_before_the_base_is_loaded(small):
    recorder = Recorder()
    with pytest.raises(InvalidRecipe, match="no GPU here"):
        run(small(compute={"optimizer": "paged_adamw_8bit"}), recorder)
    assert [event["phase"] for event in recorder.of("phase")] == ["data", "loading"]


def test_qlora_trains_in_float32_and_resumes_exactly(small):
    whole, parts = small("whole", quantization="nf4"), small("parts", quantization="nf4")
    result = run(whole, Recorder())
    assert result["adapter"]["quantization"] == "nf4"
    assert run(parts, Recorder(stop_after=3)) is None
    assert timeless(run(parts, Recorder())) == timeless(result)
    assert {str(tensor.dtype) for tensor in adapter(whole).values()} == {"torch.float32"}


def test_an_unknown_base_and_a_bad_row_are_refused_before_the_weights_are_loaded(small):
    with pytest.raises(NotFound):
        run(small("a", base="nobody/nothing"), Recorder())
    folder, recorder = small("b"), Recorder()
    with open(folder.root / "train.jsonl", "a") as file:
        file.write('{"messages": [{"role": "user"}]}\n')
    with pytest.raises(InvalidData, match="line 13"):
        run(folder, recorder)
    assert [event["phase"] for event in recorder.of("phase")] == ["data"]
