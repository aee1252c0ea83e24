"""`tunesmith data check` tells what a file holds, what is wrong with it, and which tokens of a row would train."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from tunesmith.cli.data import app, mapping
from tunesmith.errors import InvalidData, InvalidRequest, TunesmithError
from tunesmith.paths import SUPPORT_DESK, TINY

SHARED = Path(__file__).parents[3] / "shared" / "data"
GOOD = {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The built-in base's tokenizer with a config, and weights of one number: checking data needs no more."""
    folder = tmp_path_factory.mktemp("base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY / name, folder)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "max_position_embeddings": 4096}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    return folder


def check(base, *arguments) -> Result:
    """The command in this process, for torch takes seconds to import; an error that `main` would print is its exception."""
    return CliRunner().invoke(app, ["check", *map(str, arguments), "--base", str(base)])


def refused(base, *arguments) -> str:
    error = check(base, *arguments).exception
    assert isinstance(error, TunesmithError)
    return str(error)


def write(tmp_path, *rows) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_a_good_file_is_counted_and_shown_with_its_loss_mask(base):
    done = check(base, SUPPORT_DESK / "train.jsonl")
    assert done.exit_code == 0, done.output
    assert "320 read = 320 to train on + 0 set aside" in done.stdout
    assert "Format           chat" in done.stdout
    assert "min " in done.stdout
    assert "p95 " in done.stdout
    answer = json.loads((SUPPORT_DESK / "train.jsonl").read_text().splitlines()[0])["messages"][-1]["content"]
    assert f"<|im_start|>assistant\n{{+{answer}<|im_end|>+}}" in done.stdout


def test_on_a_terminal_the_loss_mask_is_in_colour(base, tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tunesmith", "data", "check", str(write(tmp_path, GOOD)), "--base", str(base)]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # Linux says that a terminal has ended with an error
            break
    os.close(ours)
    assert process.wait() == 0
    assert b"\x1b[32mHere.<|im_end|>\x1b[0m" in shown
    assert b"{+" not in shown


def test_problems_are_listed_with_their_line_and_fail_the_check(base, tmp_path):
    path = write(tmp_path, GOOD, "{oops", GOOD, {"messages": GOOD["messages"][:1]})
    done = check(base, path)
    assert done.exit_code == 1
    assert "4 read = 2 to train on + 2 set aside" in done.stdout
    assert "line 2: It is not JSON" in done.stdout
    assert "line 4: There is no assistant message, so there is nothing to learn." in done.stdout
    assert "line 3 = line 1" in done.stdout


def test_json_has_everything_for_programs(base, tmp_path):
    path = write(tmp_path, GOOD, GOOD, "7")
    done = check(base, path, "--json", "--row", 2)
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert (report["rows"], report["usable"], report["format"], report["unit"]) == (3, 2, "chat", "line")
    assert report["problems"] == [{"line": 3, "reason": "It is a number, not a JSON object.", "check": "data_type"}]
    assert report["duplicates"] == [{"line": 2, "of": 1}]
    (side,) = report["row"]
    assert len(side["ids"]) == len(side["loss_mask"]) == report["tokens"]["max"]
    assert sum(side["loss_mask"]) * 2 == report["tokens"]["trained"]


def test_columns_can_be_named_and_the_limit_set(base, tmp_path):
    path = write(tmp_path, {"ask": "Where?", "reply": "Here. " * 50})
    assert "--map question=COLUMN" in refused(base, path)
    named = ("--map", "question=ask", "--map", "answer=reply")
    assert check(base, path, *named).exit_code == 0
    short = check(base, path, *named, "--max-length", 20)
    assert short.exit_code == 1
    assert "tokens, more than the limit of 20; shorten or split it." in short.stdout


def test_a_chosen_row_is_shown_and_one_that_cannot_be_says_why(base, tmp_path):
    other = {"messages": [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]}
    path = write(tmp_path, GOOD, other, "7")
    shown = check(base, path, "--row", 2).stdout
    assert "Line 2:" in shown
    assert "{+Yes.<|im_end|>+}" in shown
    assert refused(base, path, "--row", 3).startswith("Line 3 cannot be shown: It is a number, not a JSON object.")
    assert refused(base, path, "--row", 9).startswith("Line 9 cannot be shown: There is no such line.")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("a.jsonl", "", "a.jsonl is empty."), ("a.json", "[{", "a.json is not JSON"), ("b.json", "{}\n{}", "no known shape")],
)
def test_a_file_that_cannot_be_read_is_one_sentence(base, tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    error = check(base, tmp_path / name).exception
    assert isinstance(error, InvalidData)
    assert said in error.message
    assert "\n" not in str(error)
    for_programs = check(base, tmp_path / name, "--json")
    assert for_programs.exit_code == 1
    assert said in json.loads(for_programs.stdout)["problems"][0]["reason"]


def test_a_map_is_field_and_column():
    assert mapping(["question=ask", "answer=a=b"], "map") == {"question": "ask", "answer": "a=b"}
    for wrong in ("question", "=ask", "question="):
        with pytest.raises(InvalidRequest, match="is not NAME=VALUE"):
            mapping([wrong], "map")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data beside the checkout")
@pytest.mark.parametrize(
    ("name", "rows", "usable"),
    [
        ("alpaca_en_demo.json", 999, 999),
        ("dpo_en_demo.json", 300, 295),
        ("glaive_toolcall_en_demo.json", 300, 299),
        ("gsm8k_train_2000.jsonl", 2000, 2000),
        ("identity.json", 91, 6),
        ("kto_en_demo.json", 300, 294),
        ("lamini_docs_train_1260.jsonl", 1260, 1259),
    ],
)
def test_real_files_are_checked_row_by_row(base, name, rows, usable):
    done = check(base, SHARED / name, "--json")
    report = json.loads(done.stdout)
    assert (report["rows"], report["usable"]) == (rows, usable)
    assert len(report["problems"]) == rows - usable
    assert done.exit_code == (rows != usable)
