"""Asks a running server, field by field, what it does with OpenAI's specification: honoured, refused and why, not there.

Each field is sent alone beside the least that its operation needs. docs/compatibility.md is written from what comes back.
"""

import http.client
import io
import json
import uuid
from typing import Any, NamedTuple

from api.openai_spec import Operation, fields, operations
from tunesmith.paths import SUPPORT_DESK

Json = dict[str, Any]
TINY = "tunesmith/tiny"
ASKED = [{"role": "user", "content": "Say hi."}]
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
FLAT_TOOL = {"type": "function", "name": "now", "parameters": {"type": "object", "properties": {}}, "strict": False}
STRING_CHECK = {"type": "string_check", "name": "same", "input": "{{sample.output_text}}", "reference": "a", "operation": "eq"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
ROWS = {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {"a": "b"}, "sample": {"output_text": "a"}}]}}
SAMPLED = {"logprobs": True, "top_logprobs": 2}


class Finding(NamedTuple):
    """`tried` is the value, where one field was tried with several; `reason` is the server's sentence."""

    field: str
    tried: str
    verdict: str
    reason: str


HONOURED, REFUSED, NOT_THERE = "honoured", "refused", "not there"

LEAST: dict[str, Json] = {
    "POST /chat/completions": {"model": TINY, "messages": ASKED, "max_completion_tokens": 2},
    "POST /completions": {"model": TINY, "prompt": "a", "max_tokens": 2},
    "POST /embeddings": {"model": TINY, "input": "a"},
    "POST /responses": {"model": TINY, "input": "Say hi.", "max_output_tokens": 16},
    "POST /responses/input_tokens": {"model": TINY, "input": "Say hi."},
    "POST /responses/compact": {"model": TINY, "input": "Say hi."},
    "POST /moderations": {"input": "a"},
    "POST /fine_tuning/jobs": {"model": TINY, "training_file": "<tuning file>"},
    "POST /fine_tuning/alpha/graders/run": {"grader": STRING_CHECK, "model_sample": "a"},
    "POST /fine_tuning/alpha/graders/validate": {"grader": STRING_CHECK},
    "POST /evals": {
        "data_source_config": {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True},
        "testing_criteria": [STRING_CHECK],
    },
    "POST /evals/{eval_id}/runs": {"data_source": ROWS},
    "POST /batches": {"input_file_id": "<batch file>", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    "POST /uploads": {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 3, "mime_type": "text/jsonl"},
    "POST /files": {"purpose": "fine-tune"},
}
"""The least that each operation needs. `<...>` is replaced by an id that is made for the probe."""

TRIED: dict[str, dict[str, list[Json]]] = {
    "POST /chat/completions": {
        "audio": [{"audio": {"voice": "alloy", "format": "wav"}}],
        "moderation": [{"moderation": {"model": "omni-moderation-latest"}}],
        "function_call": [{"function_call": "auto", "functions": [TOOL["function"]]}],
        "functions": [{"functions": [TOOL["function"]]}],
        "logit_bias": [{"logit_bias": {"5": 1}}],
        "max_tokens": [{"max_tokens": 2, "max_completion_tokens": None}],
        "metadata": [{"metadata": {"a": "b"}, "store": True}],
        "modalities": [{"modalities": ["text"]}, {"modalities": ["text", "audio"]}],
        "prediction": [{"prediction": {"type": "content", "content": "a"}}],
        "prompt_cache_options": [{"prompt_cache_options": {}}],
        "prompt_cache_retention": [{"prompt_cache_retention": "in_memory"}],
        "reasoning_effort": [{"reasoning_effort": "none"}, {"reasoning_effort": "low"}],
        "response_format": [{"response_format": {"type": each}} for each in ("text", "json_object")]
        + [{"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}],
        "service_tier": [{"service_tier": "auto"}, {"service_tier": "flex"}, {"service_tier": "priority"}],
        "stop": [{"stop": ["x"]}],
        "stream_options": [{"stream": True, "stream_options": {"include_usage": True}}],
        "tool_choice": [{"tool_choice": "auto", "tools": [TOOL]}],
        "tools": [{"tools": [TOOL]}],
        "parallel_tool_calls": [{"parallel_tool_calls": False, "tools": [TOOL]}],
        "top_logprobs": [SAMPLED],
        "verbosity": [{"verbosity": "medium"}, {"verbosity": "low"}],
        "web_search_options": [{"web_search_options": {}}],
    },
    "POST /completions": {
        "best_of": [{"best_of": 1}, {"best_of": 2}],
        "suffix": [{"suffix": "b"}],
        "logit_bias": [{"logit_bias": {"5": 1}}],
        "logprobs": [{"logprobs": 1}],
        "stop": [{"stop": ["x"]}],
        "prompt": [{"prompt": "a"}, {"prompt": ["a", "b"]}, {"prompt": [5, 6]}],
        "stream_options": [{"stream": True, "stream_options": {"include_usage": True}}],
    },
    "POST /embeddings": {
        "dimensions": [{"dimensions": 8}],
        "encoding_format": [{"encoding_format": "float"}, {"encoding_format": "base64"}],
        "input": [{"input": "a"}, {"input": ["a", "b"]}, {"input": [5, 6]}],
    },
    "POST /responses": {
        "context_management": [{"context_management": [{"type": "compaction"}]}],
        "conversation": [{"conversation": "conv_1"}],
        "include": [{"include": []}, {"include": ["message.output_text.logprobs"]}],
        "metadata": [{"metadata": {"a": "b"}}],
        "input": [{"input": "a"}, {"input": ASKED}],
        "moderation": [{"moderation": {"model": "omni-moderation-latest"}}],
        "previous_response_id": [{"previous_response_id": "<response>"}],
        "prompt": [{"prompt": {"id": "pmpt_1"}}],
        "prompt_cache_options": [{"prompt_cache_options": {}}],
        "prompt_cache_retention": [{"prompt_cache_retention": "in_memory"}],
        "reasoning": [{"reasoning": {"effort": "none"}}, {"reasoning": {"effort": "low"}}],
        "service_tier": [{"service_tier": "auto"}, {"service_tier": "flex"}, {"service_tier": "priority"}],
        "stream_options": [{"stream": True, "stream_options": {"include_obfuscation": False}}],
        "text": [
            {"text": {"format": {"type": "text"}}},
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
            {"text": {"verbosity": "low"}},
        ],
        "tool_choice": [{"tool_choice": "auto", "tools": [FLAT_TOOL]}],
        "tools": [{"tools": [FLAT_TOOL]}, {"tools": [{"type": "web_search"}]}],
        "parallel_tool_calls": [{"parallel_tool_calls": False, "tools": [FLAT_TOOL]}],
        "top_logprobs": [{"top_logprobs": 2}],
        "truncation": [{"truncation": "disabled"}, {"truncation": "auto"}],
    },
    "POST /responses/input_tokens": {
        "conversation": [{"conversation": "conv_1"}],
        "previous_response_id": [{"previous_response_id": "<response>"}],
        "reasoning": [{"reasoning": {"effort": "none"}}],
        "text": [{"text": {"format": {"type": "text"}}}],
        "tool_choice": [{"tool_choice": "auto", "tools": [FLAT_TOOL]}],
        "tools": [{"tools": [FLAT_TOOL]}],
        "parallel_tool_calls": [{"parallel_tool_calls": False, "tools": [FLAT_TOOL]}],
        "truncation": [{"truncation": "disabled"}],
    },
    "POST /moderations": {"model": [{"model": "omni-moderation-latest"}]},
    "POST /fine_tuning/jobs": {
        "hyperparameters": [{"hyperparameters": {"n_epochs": 1}}],
        "metadata": [{"metadata": {"a": "b"}}],
        "suffix": [{"suffix": "mine"}],
        "integrations": [{"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}],
        "validation_file": [{"validation_file": "<tuning file>"}],
        "method": [
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}}},
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1}}}},
            {"method": {"type": "reinforcement", "reinforcement": {"grader": STRING_CHECK}}},
        ],
    },
    "POST /fine_tuning/alpha/graders/run": {
        "item": [{"item": {"a": "b"}}],
        "grader": [
            {"grader": STRING_CHECK},
            {
                "grader": {
                    "type": "text_similarity",
                    "name": "n",
                    "input": "a",
                    "reference": "a",
                    "evaluation_metric": "fuzzy_match",
                }
            },
            {"grader": {"type": "score_model", "name": "n", "model": TINY, "input": ASKED}},
            {"grader": {"type": "multi", "name": "n", "graders": {"a": STRING_CHECK}, "calculate_output": "a"}},
            {"grader": {"type": "python", "name": "n", "source": "def grade(sample, item): return 1.0"}},
        ],
    },
    "POST /evals": {
        "metadata": [{"metadata": {"a": "b"}}],
        "data_source_config": [
            {},
            {"data_source_config": {"type": "logs"}},
            {"data_source_config": {"type": "stored_completions"}},
        ],
    },
    "POST /evals/{eval_id}/runs": {
        "metadata": [{"metadata": {"a": "b"}}],
        "data_source": [
            {},
            {
                "data_source": {
                    "type": "completions",
                    "model": TINY,
                    "source": ROWS["source"],
                    "input_messages": {"type": "template", "template": ASKED},
                }
            },
            {
                "data_source": {
                    "type": "responses",
                    "model": TINY,
                    "source": ROWS["source"],
                    "input_messages": {"type": "template", "template": ASKED},
                }
            },
        ],
    },
    "POST /batches": {
        "metadata": [{"metadata": {"a": "b"}}],
        "output_expires_after": [{"output_expires_after": {"anchor": "created_at", "seconds": 3600}}],
        "endpoint": [
            {"endpoint": f"/v1/{each}"}
            for each in ("chat/completions", "completions", "embeddings", "responses", "moderations", "images/generations")
        ],
    },
    "POST /uploads": {"expires_after": [{"expires_after": {"anchor": "created_at", "seconds": 3600}}]},
    "POST /files": {
        "expires_after": [{"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}],
        "purpose": [{"purpose": each} for each in ("fine-tune", "batch", "evals", "assistants", "vision", "user_data")],
    },
}
"""Values for fields whose schema says too little, with what must come beside them; several show what is taken and what not."""

PLAIN: dict[str, Any] = {"string": "a", "boolean": True, "integer": 1, "number": 0.5, "object": {}, "array": []}


def value_of(schema: Json) -> Any:
    """Some value that a schema allows."""
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        found = value_of(part)
        if found is not None:
            return found
    if schema.get("default") is not None:
        return schema["default"]
    if "enum" in schema:
        return next(value for value in schema["enum"] if value is not None)
    kind = schema.get("type")
    return PLAIN.get(next(each for each in kind if each != "null") if isinstance(kind, list) else kind)


class Prober:
    """Asks the server at `port` of this machine."""

    def __init__(self, port: int, key: str, make: dict[str, str]):
        self._port, self._key, self._make = port, key, make

    def refusal(self, operation: Operation) -> str:
        """Why the whole operation is refused; empty when it is not."""
        status, answer = self._send(operation, self._filled(LEAST[str(operation)]))
        return "" if status < 400 else str(answer["error"]["message"])

    def findings(self, operation: Operation) -> list[Finding]:
        """One for each field, or for each value that was tried."""
        name, found = str(operation), []
        for field, schema in sorted(fields(operation).items()):
            tried = TRIED.get(name, {}).get(field)
            tries = tried or [{} if field in LEAST[name] or field == "file" else {field: value_of(schema)}]
            found += [self._try(operation, field, more, is_one=len(tries) == 1) for more in tries]
        return found

    def _try(self, operation: Operation, field: str, more: Json, *, is_one: bool) -> Finding:
        body = self._filled(LEAST[str(operation)] | more)
        status, answer = self._send(operation, body)
        shown = "" if is_one else json.dumps(_short(body[field]))
        if status < 400:
            return Finding(field, shown, HONOURED, "")
        error = answer["error"]
        about = str(error["param"] or "")
        assert status < 500, (operation, field, body, answer)
        if status == 404 and error["code"] == "unknown_url":
            return Finding(field, shown, NOT_THERE, "")
        is_about = about.split(".")[0].split("[")[0] == field or error["code"] == "not_available"
        assert is_about, f"{operation}: {field} was tried, and {about} was refused: {error['message']}"
        return Finding(field, shown, REFUSED, error["message"])

    def _send(self, operation: Operation, body: Json) -> tuple[int, Any]:
        path = f"/v1{operation.path}".replace("{eval_id}", self._make["<eval>"])
        if operation.path == "/files":
            data, content_type = form(body)
        else:
            data, content_type = (
                json.dumps({name: value for name, value in body.items() if value is not None}).encode(),
                "application/json",
            )
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        connection.request(
            operation.method, path, data, {"content-type": content_type, "authorization": f"Bearer {self._key}"}
        )
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        # A stream that began has status 200; what is in it does not matter here.
        return response.status, json.loads(answer) if response.status >= 400 else None

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._filled(inner) for inner in value]
        return self._make.get(value, value) if isinstance(value, str) else value


def _short(value: Any) -> Any:
    """Of an object its type, where it has one."""
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        return value["type"]
    if isinstance(value, dict) and isinstance(value.get("format"), dict):
        return f"format {value['format'].get('type')}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_short(each) if isinstance(each.get("type"), str) else "..." for each in value]
    return value


def form(body: Json, content: bytes = b"{}\n") -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    whole = io.BytesIO()
    for name, value in body.items():
        whole.write(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    whole.write(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'.encode() + content)
    whole.write(f"\r\n--{boundary}--\r\n".encode())
    return whole.getvalue(), f"multipart/form-data; boundary={boundary}"


def make_things(client: Any) -> dict[str, str]:
    """What the probes refer to."""
    rows = "\n".join((SUPPORT_DESK / "train.jsonl").read_text().splitlines()[:12]).encode()
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": TINY, "messages": ASKED, "max_tokens": 1},
    }
    return {
        "<tuning file>": client.files.create(file=("a.jsonl", rows), purpose="fine-tune").id,
        "<batch file>": client.files.create(file=("b.jsonl", json.dumps(line).encode()), purpose="batch").id,
        "<eval>": client.evals.create(**LEAST["POST /evals"]).id,
        "<response>": client.responses.create(model=TINY, input="a", max_output_tokens=16).id,
    }


def is_there(operation: Operation, routes: set[tuple[str, str]]) -> bool:
    """`routes`: (method, path with {} for each parameter) of our own document."""
    return (operation.method.lower(), f"/v1{operation.path}") in routes


def with_bodies() -> list[Operation]:
    return [operation for operation in operations() if str(operation) in LEAST]
