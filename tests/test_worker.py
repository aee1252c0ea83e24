"""The worker as the desk starts it: killed, cancelled, paused, fenced, on a full disk; seen by its events and exit status."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from results import timeless

import tunesmith
from tunesmith.cli import local_run
from tunesmith.errors import InvalidRequest, NotFound, TrainingFailed
from tunesmith.paths import SUPPORT_DESK
from tunesmith.recipes.run import parse
from tunesmith.runfolder import RunFolder, read_events

pytestmark = pytest.mark.slow

RECIPE = {
    "method": {"epochs": 60, "batch_size": 4, "learning_rate": 0.003},
    "adapter": {"rank": 4, "alpha": 8},
    "data": {"train": "train.jsonl"},
    "checkpoints": {"every_steps": 10},
    "evaluation": {"verify": False},
    "threads": 1,
}
"""12 rows: 180 steps, so many that a test which is slow to act still finds the worker at work."""
STEPS = 180


def make_folder(root, recipe=RECIPE):
    folder = RunFolder(root).create(parse(recipe))
    rows = (SUPPORT_DESK / "train.jsonl").read_text().splitlines(keepends=True)[:12]
    (root / "train.jsonl").write_text("".join(rows))
    folder.order("run", 1)
    return folder


def start(folder, attempt=1, **options):
    command = [sys.executable, "-m", "tunesmith.worker", str(folder.root), "--attempt", str(attempt)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)


def events(folder, attempt=1):
    return read_events(folder.events_file(attempt)).events


def of(folder, kind, attempt=1):
    return [event for event in events(folder, attempt) if event["type"] == kind]


def wait_until(condition, process):
    """Polls while the worker runs; a worker that ended without it is an error."""
    while not condition():
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)


def ended(process):
    process.wait()
    process.stderr.close()
    return process.returncode


def current_steps(folder, attempts):
    """What a desk's table holds: a resume from step k supersedes the rows of earlier attempts after k."""
    rows = {}
    for attempt in attempts:
        for event in events(folder, attempt):
            if event["type"] == "resumed":
                rows = {step: row for step, row in rows.items() if step <= event["step"]}
            elif event["type"] == "step":
                assert event["step"] not in rows, "a step has two current rows"
                rows[event["step"]] = event
    return rows


def test_killed_twice_it_ends_bit_for_bit_as_if_it_had_not_been(tmp_path):
    straight, killed = make_folder(tmp_path / "straight"), make_folder(tmp_path / "killed")
    assert ended(start(straight)) == 0
    for attempt, after in ((1, 12), (2, 60)):
        killed.order("run", attempt)
        process = start(killed, attempt)
        wait_until(lambda a=attempt, n=after: any(e["step"] >= n for e in of(killed, "step", a)), process)
        process.send_signal(signal.SIGKILL)
        assert ended(process) == -signal.SIGKILL
    killed.order("run", 3)
    assert ended(start(killed, 3)) == 0

    assert timeless(killed.result()) == timeless(straight.result())
    rows = current_steps(killed, [1, 2, 3])
    assert sorted(rows) == list(range(1, STEPS + 1))
    assert [rows[s]["loss"] for s in sorted(rows)] == [event["loss"] for event in of(straight, "step")]
    for attempt in (1, 2, 3):
        assert [event["seq"] for event in events(killed, attempt)] == list(range(1, len(events(killed, attempt)) + 1))


def test_pause_writes_a_checkpoint_and_the_next_attempt_goes_on(tmp_path):
    folder = make_folder(tmp_path / "run")
    process = start(folder)
    wait_until(lambda: len(of(folder, "step")) >= 2, process)
    folder.order("pause", 1)
    assert ended(process) == 0
    last = events(folder)[-1]
    assert last["type"] == "paused"
    assert of(folder, "checkpoint")[-1]["step"] == last["step"] < STEPS
    assert folder.result() is None
    folder.order("run", 2)
    assert ended(start(folder, 2)) == 0
    assert of(folder, "resumed", 2)[0]["step"] == last["step"]
    assert sorted(current_steps(folder, [1, 2])) == list(range(1, STEPS + 1))


def test_told_to_end_it_saves_its_work_leaves_with_33_and_goes_on_bit_for_bit(tmp_path):
    straight, folder = make_folder(tmp_path / "straight"), make_folder(tmp_path / "run")
    assert ended(start(straight)) == 0
    process = start(folder)
    wait_until(lambda: len(of(folder, "step")) >= 3, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 33
    last = events(folder)[-1]
    assert last["type"] == "interrupted"
    assert of(folder, "checkpoint")[-1]["step"] == last["step"] < STEPS
    assert "SIGTERM" in of(folder, "warning")[0]["message"]
    folder.order("run", 2)
    assert ended(start(folder, 2)) == 0
    assert of(folder, "resumed", 2)[0]["step"] == last["step"]
    assert timeless(folder.result()) == timeless(straight.result())


def test_told_to_end_before_its_first_step_it_leaves_at_once_with_33(tmp_path):
    folder = make_folder(tmp_path / "run")
    process = start(folder)
    wait_until(lambda: of(folder, "phase"), process)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 33
    assert of(folder, "step") == []


def test_a_notice_of_the_cloud_is_heard_while_it_trains(tmp_path, cloud):
    folder = make_folder(tmp_path / "run")
    process = start(folder, env=os.environ | {"TUNESMITH_NOTICES": f"azure={cloud.address}"})
    wait_until(lambda: of(folder, "step"), process)
    cloud.azure_takes("this-machine")
    assert ended(process) == 33
    assert "Azure: Preempt" in of(folder, "warning")[0]["message"]
    assert events(folder)[-1]["type"] == "interrupted"


def test_on_another_machine_a_run_goes_on_from_the_storage_bit_for_bit(tmp_path, s3):
    synced = {**RECIPE, "method": {**RECIPE["method"], "epochs": 6}, "checkpoints": {"every_steps": 4, "sync": s3}}
    straight = make_folder(tmp_path / "straight", {**synced, "checkpoints": {"every_steps": 4}})
    assert ended(start(straight)) == 0
    first = make_folder(tmp_path / "first" / "run", synced)
    process = start(first)
    wait_until(lambda: of(first, "checkpoint"), process)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 33
    second = make_folder(tmp_path / "second" / "run", synced)
    assert ended(start(second)) == 0
    assert of(second, "resumed")[0]["step"] == events(first)[-1]["step"]
    assert of(second, "warning") == []
    assert timeless(second.result()) == timeless(straight.result())


def test_a_storage_that_fails_is_a_warning_and_the_run_goes_on(tmp_path, s3):
    recipe = {**RECIPE, "method": {**RECIPE["method"], "epochs": 1}, "checkpoints": {"sync": "s3://no-such-bucket/x"}}
    folder = make_folder(tmp_path / "run", recipe)
    assert ended(start(folder)) == 0
    assert ["No checkpoint was fetched" in each["message"] for each in of(folder, "warning")][0]
    assert any("not copied" in each["message"] for each in of(folder, "warning"))
    assert folder.result()["steps"] == 3


def test_cancel_stops_it_at_the_next_step_and_nothing_is_published(tmp_path):
    folder = make_folder(tmp_path / "run")
    process = start(folder)
    wait_until(lambda: of(folder, "step"), process)
    folder.order("cancel", 1)
    assert ended(process) == 0
    assert events(folder)[-1]["type"] == "cancelled"
    assert folder.result() is None
    assert list(folder.artifacts.iterdir()) == []


def test_a_worker_that_lost_its_lease_stops_and_publishes_nothing(tmp_path):
    folder = make_folder(tmp_path / "run")
    process = start(folder)
    wait_until(lambda: of(folder, "step"), process)
    folder.order("run", 2)
    assert ended(process) == 3
    assert folder.result() is None
    assert list(folder.artifacts.iterdir()) == []
    assert ended(start(folder, 1)) == 3


def test_wrong_rows_and_an_unknown_base_are_one_error_event(tmp_path):
    folder = make_folder(tmp_path / "run", {**RECIPE, "base": "nobody/nothing"})
    assert ended(start(folder)) == 1
    assert events(folder)[-1]["type"] == "error"
    assert events(folder)[-1]["code"] == "model_not_found"
    folder = make_folder(tmp_path / "other")
    (folder.root / "train.jsonl").write_text('{"messages": []}\n')
    assert ended(start(folder)) == 1
    error = events(folder)[-1]
    assert (error["type"], error["code"]) == ("error", "invalid_training_file")
    assert "line 1" in error["message"]


def test_a_full_disk_is_told_and_the_last_checkpoint_goes_on(tmp_path):
    folder = make_folder(tmp_path / "run", {**RECIPE, "adapter": {"rank": 64, "alpha": 64}})

    def small_files_only():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    process = start(folder)
    wait_until(lambda: of(folder, "checkpoint"), process)
    folder.order("pause", 1)
    assert ended(process) == 0
    paused = events(folder)[-1]["step"]

    folder.order("run", 2)
    assert ended(start(folder, 2, preexec_fn=small_files_only)) == 1
    assert events(folder, 2)[-1]["type"] == "error"
    assert events(folder, 2)[-1]["code"] == "disk_full"

    folder.order("run", 3)
    assert ended(start(folder, 3)) == 0
    assert of(folder, "resumed", 3)[0]["step"] == paused
    assert sorted(current_steps(folder, [1, 2, 3])) == list(range(1, STEPS + 1))


# -- without a server -----------------------------------------------------------------------------------------------------


def command(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "tunesmith", "train", *map(str, words)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )


def recipe_file(folder):
    shutil.copy(SUPPORT_DESK / "train.jsonl", folder / "rows.jsonl")
    path = folder / "recipe.toml"
    path.write_text('threads = 1\n[data]\ntrain = "rows.jsonl"\n[method]\nepochs = 1\nbatch_size = 32\n[adapter]\nrank = 4\n')
    return path


def test_the_command_runs_a_recipe_in_a_folder_that_needs_nothing_else(tmp_path):
    process = command(recipe_file(tmp_path), "--run-dir", tmp_path / "run", "--set", "method.epochs=0.2", "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    result = json.loads(out)["result"]
    assert result["steps"] == 2
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    folder = RunFolder(tmp_path / "elsewhere")
    assert folder.result() == result
    assert (folder.data_path(folder.recipe().data.train)).is_file()
    assert not list(tmp_path.rglob("*.db"))


def test_ctrl_c_pauses_the_command_and_resume_goes_on(tmp_path):
    process = command(recipe_file(tmp_path), "--run-dir", tmp_path / "run", "--set", "method.epochs=9")
    folder = RunFolder(tmp_path / "run")
    while not of(folder, "step"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "--resume" in err
    assert events(folder)[-1]["type"] == "paused"
    process = command("--resume", tmp_path / "run", "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["result"]["steps"] == 90
    assert sorted(current_steps(folder, [1, 2])) == list(range(1, 91))


def test_the_command_told_to_end_says_how_to_go_on_and_leaves_with_33(tmp_path):
    process = command(recipe_file(tmp_path), "--run-dir", tmp_path / "run", "--set", "method.epochs=9")
    folder = RunFolder(tmp_path / "run")
    wait_until(lambda: of(folder, "step"), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 33, err
    assert f"tunesmith train --resume {tmp_path / 'run'}" in err
    assert events(folder)[-1]["type"] == "interrupted"


def test_a_worker_that_is_killed_is_started_again(tmp_path):
    rows = (SUPPORT_DESK / "train.jsonl").read_text().splitlines(keepends=True)[:12]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    recipe = parse({**RECIPE, "data": {"train": str(tmp_path / "rows.jsonl")}})
    folder = local_run.lay_out(recipe, tmp_path / "run")
    told = []

    def kill_once(event):
        told.append(event)
        if event["type"] == "checkpoint" and not any(e["type"] == "warning" for e in told):
            os.kill(told[0]["pid"], signal.SIGKILL)

    result = local_run.run(folder, kill_once)
    assert result["steps"] == STEPS
    assert folder.attempts() == [1, 2]
    assert "SIGKILL" in next(event["message"] for event in told if event["type"] == "warning")


def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path):
    process = command(tmp_path / "nothing.toml")
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.startswith("Error: ")
    assert "Traceback" not in err


def test_a_run_is_not_written_over(tmp_path):
    (tmp_path / "rows.jsonl").write_text((SUPPORT_DESK / "train.jsonl").read_text())
    recipe = parse({"data": {"train": str(tmp_path / "rows.jsonl")}})
    local_run.lay_out(recipe, tmp_path / "run")
    with pytest.raises(InvalidRequest, match="already holds a run"):
        tunesmith.train(recipe, tmp_path / "run")
    with pytest.raises(NotFound, match="no data file"):
        tunesmith.train({"data": {"train": str(tmp_path / "none.jsonl")}}, tmp_path / "other")


def test_the_function_train_stays_when_the_room_of_that_name_is_imported():
    import tunesmith.train.tools
    from tunesmith.train import order

    assert callable(tunesmith.train)
    assert order.num_steps(8, 8, 1) == 1


def test_a_worker_s_own_error_is_the_command_s(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(TrainingFailed, match="line 1"):
        tunesmith.train({"data": {"train": str(tmp_path / "rows.jsonl")}}, tmp_path / "run")


def test_a_secret_that_the_environment_lacks_is_one_error_event(tmp_path):
    folder = make_folder(tmp_path / "run", RECIPE | {"secrets": ["TUNESMITH_TEST_TOKEN_THAT_IS_NOT_SET"]})
    _, told = start(folder).communicate(timeout=120)
    last = read_events(folder.events_file(1)).events[-1]
    assert (last["type"], last["code"]) == ("error", "invalid_recipe"), told
    assert "TUNESMITH_TEST_TOKEN_THAT_IS_NOT_SET" in last["message"]
