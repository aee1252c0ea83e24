"""Evals through the official client: definitions, runs over every kind of source, output items, what is refused, and a kill."""

import io
import json
import os
import signal
import time
from pathlib import Path

import openai
import pytest
from openai.types import EvalCreateResponse
from openai.types.evals import RunRetrieveResponse
from openai.types.evals.runs import OutputItemRetrieveResponse
from typer.testing import CliRunner

from tunesmith.cli import evals as cli
from tunesmith.errors import TunesmithError
from tunesmith.runfolder import RunFolder, read_events

MODEL = "tunesmith/tiny"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "land": {"type": "string"}}, "required": ["city"]}
CITY = {
    "type": "string_check", "name": "city", "operation": "ilike",
    "input": "{{ sample.output_text }}", "reference": "{{ item.city }}",
}
NEAR = {
    "type": "text_similarity", "name": "near", "evaluation_metric": "fuzzy_match", "pass_threshold": 0.0,
    "input": "{{ sample.output_text }}", "reference": "{{ item.city }}",
}
TEMPLATE = {"type": "template", "template": [
    {"role": "developer", "content": "You know cities."},
    {"role": "user", "content": {"type": "input_text", "text": "Name the capital of {{ item.land }}."}},
]}


@pytest.fixture(scope="module")
def served(talking):
    return talking


def define(client, criteria=(NEAR,), config=None, **fields):
    config = config or {"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True}
    return client.evals.create(data_source_config=config, testing_criteria=list(criteria), **fields)


def content(*rows):
    return {"type": "file_content", "content": list(rows)}


def ended(client, run):
    while run.status in {"queued", "in_progress"}:
        time.sleep(0.05)
        run = client.evals.runs.retrieve(run.id, eval_id=run.eval_id)
    return run


def execute(client, definition, data_source, **fields):
    run = ended(client, client.evals.runs.create(definition.id, data_source=data_source, **fields))
    assert run.status == "completed", run.error
    return run


def items(client, run, **filters):
    return list(client.evals.runs.output_items.list(run.id, eval_id=run.eval_id, **filters))


def strict(model, value):
    """The client's own class accepts the object as it stands."""
    return model.model_validate(json.loads(value.to_json()), strict=True)


# -- definitions ------------------------------------------------------------------------------------------------------------


def test_a_definition_is_echoed_listed_changed_and_deleted(client):
    first = define(client, [CITY | {"operation": "neq"}, NEAR], name="first", metadata={"team": "a"})
    strict(EvalCreateResponse, first)
    assert (first.object, first.name, first.metadata) == ("eval", "first", {"team": "a"})
    assert first.to_dict()["data_source_config"]["schema"]["properties"]["item"] == SCHEMA
    assert set(first.to_dict()["data_source_config"]) == {"type", "schema"}
    assert [criterion.type for criterion in first.testing_criteria] == ["string_check", "text_similarity"]
    second = define(client, name="second")
    assert client.evals.update(first.id, name="renamed").metadata == {"team": "a"}
    ids = [each.id for each in client.evals.list(limit=1)]
    assert ids.index(first.id) < ids.index(second.id)
    changed = [each.id for each in client.evals.list(limit=1, order="desc", order_by="updated_at")]
    assert changed.index(first.id) < changed.index(second.id)
    assert sorted(changed) == sorted(ids)
    assert client.evals.retrieve(first.id).name == "renamed"
    gone = client.evals.delete(second.id)
    assert (gone.object, gone.deleted, gone.eval_id) == ("eval.deleted", True, second.id)
    with pytest.raises(openai.NotFoundError):
        client.evals.retrieve(second.id)


@pytest.mark.parametrize(("fields", "param", "code"), [
    ({"criteria": [{"type": "python", "name": "p", "source": ""}]}, "testing_criteria.0.type", "not_available"),
    ({"criteria": [CITY, NEAR | {"evaluation_metric": "meteor"}]}, "testing_criteria.1.evaluation_metric", "not_available"),
    ({"criteria": [{k: v for k, v in NEAR.items() if k != "pass_threshold"}]},
     "testing_criteria.0.pass_threshold", "missing_required_parameter"),
    ({"criteria": [{"type": "score_model", "name": "j", "model": "nobody", "input": [{"role": "user", "content": "x"}]}]},
     "testing_criteria.0.model", "model_not_found"),
    ({"criteria": [CITY, CITY | {"operation": "regex"}]}, "testing_criteria.1.operation", "invalid_value"),
    ({"criteria": [CITY | {"type": "banana"}]}, "testing_criteria.0", "invalid_value"),
    ({"criteria": [CITY | {"reference": "{{ row.city }}"}]}, "testing_criteria.0.reference", "invalid_template"),
    ({"config": {"type": "custom", "item_schema": {"type": "banana"}}}, "data_source_config.item_schema", "invalid_schema"),
])
def test_a_definition_that_could_not_be_run_is_refused(client, fields, param, code):
    with pytest.raises(openai.BadRequestError) as caught:
        define(client, **fields)
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"\\ud800"', "[" * 3000 + "]" * 3000, '"\\u0000"', "1e999"])
def test_json_that_cannot_be_written_again_is_a_400_or_kept(client, served, value):
    """Never a 500, now or when it is read."""
    config = {"type": "custom", "item_schema": {"title": "@"}}
    rows = {"type": "jsonl", "source": content({"item": {"city": "@"}})}
    run = f"/v1/evals/{define(client).id}/runs"
    for path, body in (("/v1/evals", {"data_source_config": config, "testing_criteria": [CITY]}), (run, {"data_source": rows})):
        text = json.dumps(body).replace('"@"', value)
        status, _, answer = served.request("POST", path, text, headers={"content-type": "application/json"})
        assert status in {201, 400}, answer
        if status == 201:
            assert served.request("GET", f"{path}/{answer['id']}")[0] == 200
    assert served.request("GET", run)[0] == 200


# -- runs -------------------------------------------------------------------------------------------------------------------


def test_a_model_is_asked_by_a_template_and_each_object_is_as_the_client_knows_it(client):
    definition = define(client, [CITY, NEAR])
    rows = [{"item": {"city": city, "land": land}} for city, land in (("Paris", "France"), ("Rome", "Italy"), ("Oslo", "Norway"))]
    params = {"temperature": 0, "seed": 3, "top_p": 0.9, "max_completion_tokens": 6}
    source = {"type": "completions", "model": "gpt-4o-mini", "source": content(*rows), "input_messages": TEMPLATE,
              "sampling_params": params}
    made = client.evals.runs.create(definition.id, name="capitals", metadata={"night": "one"}, data_source=source)
    assert (made.status, made.name, made.metadata, made.model) == ("queued", "capitals", {"night": "one"}, "gpt-4o-mini")
    assert made.to_dict()["data_source"] == source
    run = strict(RunRetrieveResponse, ended(client, made))
    assert (run.status, run.result_counts.total, run.result_counts.errored) == ("completed", 3, 0)
    assert run.report_url.endswith(f"/v1/evals/{definition.id}/runs/{run.id}")
    used = run.per_model_usage[0]
    assert (used.run_model_name, used.invocation_count) == ("gpt-4o-mini", 3)
    assert used.total_tokens == used.prompt_tokens + used.completion_tokens > 3
    counted = {each.testing_criteria: (each.passed, each.failed) for each in run.per_testing_criteria_results}
    assert counted["near"] == (3, 0)
    assert sum(counted["city"]) == 3
    found = items(client, run, limit=2)
    assert sorted(item.datasource_item_id for item in found) == [0, 1, 2]
    for item in found:
        strict(OutputItemRetrieveResponse, item)
        assert item.datasource_item == rows[item.datasource_item_id]["item"]
        assert item.status == ("pass" if all(result.passed for result in item.results) else "fail")
        assert [(result.name, result.type) for result in item.results] == [
            ("city", "string-check-grader"), ("near", "text-similarity-grader"),
        ]
        sample = item.sample
        assert sample.input[1].content == f"Name the capital of {item.datasource_item['land']}."
        assert (sample.temperature, sample.seed, sample.top_p, sample.max_completion_tokens) == (0, 3, 0.9, 6)
        assert sample.usage.completion_tokens <= 6
        one = client.evals.runs.output_items.retrieve(item.id, eval_id=definition.id, run_id=run.id)
        assert one.to_dict() == item.to_dict()
    by_status = {status: {item.id for item in items(client, run, status=status)} for status in ("pass", "fail")}
    assert by_status["pass"] | by_status["fail"] == {item.id for item in found}
    assert not by_status["pass"] & by_status["fail"]


def test_given_answers_are_graded_and_what_is_wrong_with_a_row_is_an_item_with_an_error(client):
    lines = [
        json.dumps({"item": {"city": "Paris"}, "sample": {"output_text": "in paris"}}), "", "no JSON", '{"item": 5}',
        json.dumps({"item": {"city": 5}, "sample": {"output_text": "x"}}), json.dumps({"item": {"city": "Rome"}}),
        '{"item": {"city": "\\ud800"}}', '{"item": {"city": "x", "n": NaN}}',
        json.dumps({"item": {"city": "Paris"}, "sample": {"output_text": "in Rome"}}),
    ]
    file = client.files.create(file=("rows.jsonl", io.BytesIO("\n".join(lines).encode())), purpose="evals")
    definition = define(client, [CITY, CITY])
    run = execute(client, definition, {"type": "jsonl", "source": {"type": "file_id", "id": file.id}})
    assert run.result_counts.to_dict() == {"total": 8, "errored": 6, "failed": 1, "passed": 1}
    assert (run.model, run.per_model_usage) == ("", [])
    assert [each.testing_criteria for each in run.per_testing_criteria_results] == ["city", "city-2"]
    by_row = {item.datasource_item_id: item for item in items(client, run)}
    assert [by_row[row].status for row in (0, 7)] == ["pass", "fail"]
    assert by_row[0].sample.output[0].content == "in paris"
    assert "no JSON" in by_row[1].sample.error.message
    assert "item.city" in by_row[3].sample.error.message
    assert by_row[4].to_dict()["results"][0]["sample"]["error"].startswith("There is no sample.output_text")
    errored = items(client, run, extra_query={"status": "error"})
    assert {item.datasource_item_id for item in errored} == {1, 2, 3, 4, 5, 6}


def test_judges_label_formats_are_passed_on_and_an_engine_s_refusal_is_an_error_of_its_row(client):
    limit = {"max_completions_tokens": 40, "temperature": 0}
    judge = {"model": MODEL, "input": [{"role": "user", "content": "{{ sample.output_json.a }}"}], "sampling_params": limit}
    criteria = [
        {"type": "label_model", "name": "label", "labels": ["good", "bad"], "passing_labels": ["good", "bad"], **judge},
        {"type": "string_check", "name": "tools", "operation": "eq", "input": "{{ sample.output_tools }}", "reference": "[]"},
    ]
    schema = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"], "additionalProperties": False}
    source = {
        "type": "responses", "model": MODEL, "source": content({"item": {"city": "Paris"}}, {"item": {"city": "word " * 20_000}}),
        "input_messages": {"type": "item_reference", "item_reference": "item.city"},
        "sampling_params": {"temperature": 0, "max_completion_tokens": 30, "text": {"format": {
            "type": "json_schema", "name": "a", "strict": True, "schema": schema,
        }}},
    }
    run = execute(client, define(client, criteria), source)
    item, refused = sorted(items(client, run), key=lambda each: each.datasource_item_id)
    assert (refused.status, refused.sample.error.code) == ("error", "context_length_exceeded")
    assert item.sample.output[0].content.replace(" ", "") == '{"a":"x"}'
    assert item.results[0].sample["input"] == [{"role": "user", "content": "x"}]
    assert run.per_model_usage[0].invocation_count == 2


def test_stored_answers_are_graded_as_they_are_or_asked_again(client):
    for number in range(3):
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": f"Say {number}"}], max_tokens=4, store=True,
            metadata={"set": "stored", "number": str(number)},
        )
    config = {"type": "stored_completions", "metadata": {"set": "stored"}}
    definition = define(client, [NEAR | {"reference": "{{ item.input[0].content }}"}], config)
    assert definition.to_dict()["data_source_config"]["metadata"] == {"set": "stored"}
    newest = {"type": "stored_completions", "limit": 2, "model": MODEL}
    as_they_are = execute(client, definition, {"type": "completions", "source": newest})
    found = items(client, as_they_are)
    assert {item.datasource_item["metadata"]["number"] for item in found} == {"1", "2"}
    assert as_they_are.per_model_usage == []
    assert all(item.sample.output[0].content == item.datasource_item["output"] for item in found)
    asked = execute(client, definition, {
        "type": "completions", "model": MODEL, "source": {"type": "stored_completions", "metadata": {"number": "0"}},
        "input_messages": {"type": "item_reference", "item_reference": "item.input"},
        "sampling_params": {"max_completions_tokens": 4, "temperature": 0},
    })
    assert items(client, asked)[0].sample.input[0].content == "Say 0"
    assert asked.per_model_usage[0].invocation_count == 1


def test_stored_responses_are_found_by_what_was_asked(client):
    for number, instructions in enumerate(("Be brief.", "Be long.")):
        client.responses.create(
            model=MODEL, input=f"Count to {number}.", instructions=instructions, max_output_tokens=16,
            metadata={"set": "responses"},
        )
    config = {"type": "logs", "metadata": {"set": "responses"}}
    definition = define(client, [NEAR | {"reference": "{{ item.input[1].content }}"}], config)
    source = {"type": "responses", "instructions_search": "brief"}
    run = execute(client, definition, {"type": "responses", "source": source})
    assert [item.sample.input[0].content for item in items(client, run)] == ["Be brief."]
    with pytest.raises(openai.BadRequestError) as caught:
        client.evals.runs.create(definition.id, data_source={"type": "responses", "source": source | {"users": ["nobody"]}})
    assert caught.value.code == "no_rows"


@pytest.mark.parametrize(("change", "param"), [
    ({"model": "nobody"}, "data_source.model"),
    ({"model": None}, "data_source.model"),
    ({"input_messages": None}, "data_source.input_messages"),
    ({"input_messages": {"type": "item_reference", "item_reference": "sample.x"}}, "data_source.input_messages.item_reference"),
    ({"input_messages": {"type": "template", "template": [{"role": "user", "content": "{{ x }}"}]}},
     "data_source.input_messages.template.0.content"),
    ({"sampling_params": {"tools": [{"type": "web_search"}]}}, "data_source.sampling_params.tools.0"),
    ({"source": {"type": "file_id", "id": "file-nobody"}}, "data_source.source.id"),
])
def test_a_run_that_cannot_be_is_refused_by_its_field(client, change, param):
    source = content({"item": {"city": "x"}})
    whole = {"type": "completions", "model": MODEL, "source": source, "input_messages": TEMPLATE} | change
    with pytest.raises(openai.BadRequestError) as caught:
        client.evals.runs.create(define(client).id, data_source={k: v for k, v in whole.items() if v is not None})
    assert caught.value.param == param


def test_the_command_line_lists_runs_shows_and_cancels(client, served, tmp_path):
    def call(*arguments):
        flags = ["--url", f"http://127.0.0.1:{served.port}/v1", "--key", served.key]
        result = CliRunner().invoke(cli.app, [*map(str, arguments), *flags], catch_exceptions=False)
        lines = [line for line in result.stdout.splitlines() if "[info" not in line]  # the server logs in this process too
        return result.exit_code, "\n".join(lines)

    definition = define(client, [CITY], name="from the command line")
    rows = [{"item": {"city": "Paris"}, "sample": {"output_text": text}} for text in ("in paris", "in Rome")]
    source = tmp_path / "source.json"
    source.write_text(json.dumps({"type": "jsonl", "source": content(*rows)}))
    assert definition.id in [each["id"] for each in json.loads(call("list", "--limit", 100, "--json")[1])]
    status, text = call("run", definition.id, source, "--name", "cli", "--json")
    run = json.loads(text)
    assert (status, run["status"], run["name"]) == (0, "completed", "cli")
    assert json.loads(call("show", definition.id, "--json")[1])["runs"][0]["id"] == run["id"]
    shown = call("show", definition.id, "--run", run["id"])[1].splitlines()
    assert "1 of 2 passed, 1 failed, 0 without a grade" in shown[0]
    assert shown[1:] == ["  row 1: fail  city 0"]
    with pytest.raises(TunesmithError, match="already succeeded"):
        call("cancel", definition.id, run["id"])


# -- life and death ---------------------------------------------------------------------------------------------------------


def long_run(client, definition, count=60, tokens=48):
    rows = [{"item": {"city": "Paris", "land": f"number {number}"}} for number in range(count)]
    return client.evals.runs.create(definition.id, data_source={
        "type": "completions", "model": MODEL, "source": content(*rows), "input_messages": TEMPLATE,
        "sampling_params": {"max_completion_tokens": tokens, "temperature": 0},
    })


def begun(client, run, number=1):
    while len(client.evals.runs.output_items.list(run.id, eval_id=run.eval_id).data) < number:
        time.sleep(0.02)
        assert client.evals.runs.retrieve(run.id, eval_id=run.eval_id).status in {"queued", "in_progress"}


def test_runs_are_cancelled_by_both_paths_and_deleted_while_they_go_on(client, served):
    definition = define(client)
    first, second, third = (long_run(client, definition, count=200) for _ in range(3))
    begun(client, first)
    for run, path in ((first, ""), (second, "/cancel")):
        status, _, body = served.request("POST", f"/v1/evals/{definition.id}/runs/{run.id}{path}")
        assert (status, body["status"]) == (200, "canceled")
        status, _, body = served.request("POST", f"/v1/evals/{definition.id}/runs/{run.id}{path}")
        assert (status, body["error"]["code"]) == (400, "job_finished")
    assert items(client, first), "what is done is kept"
    assert [run.id for run in client.evals.runs.list(definition.id, status="canceled", limit=1)] == [first.id, second.id]
    assert client.evals.runs.list(definition.id, status="completed").data == []
    gone = client.evals.runs.delete(third.id, eval_id=definition.id)
    assert (gone.object, gone.deleted, gone.run_id) == ("eval.run.deleted", True, third.id)
    for call in (client.evals.runs.retrieve, client.evals.runs.output_items.list):
        with pytest.raises(openai.NotFoundError):
            call(third.id, eval_id=definition.id)
    assert client.evals.delete(definition.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.evals.runs.retrieve(first.id, eval_id=definition.id)


def worker_of(folder):
    """The process that works on a run folder; found by its command line, as an operator would."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if str(folder.root) in words and "tunesmith.worker" in words:
                return int(entry.name)
    return None


def test_a_killed_worker_s_run_goes_on_and_asks_nothing_twice(client, served):
    run = long_run(client, define(client))
    begun(client, run, number=5)
    folder = RunFolder(served.desk.settings.dirs.run(run.id))
    before = {item.id: item.to_dict() for item in items(client, run)}
    os.kill(worker_of(folder), signal.SIGKILL)
    run = ended(client, run)
    assert (run.status, run.result_counts.total, run.result_counts.errored) == ("completed", 60, 0)
    done = [[event["row"] for event in read_events(folder.events_file(number)).events if event["type"] == "item"]
            for number in folder.attempts()]
    assert len(done) == 2
    assert done[0]
    assert done[1]
    assert sorted(done[0] + done[1]) == list(range(60)), "each row was answered once"
    after = {item.id: item.to_dict() for item in items(client, run, limit=100)}
    assert len(after) == 60
    assert {name: after[name] for name in before} == before
    assert run.per_model_usage[0].invocation_count == 60
