"""Whatever is sent to any operation of our OpenAPI document, or of OpenAI's: no 5xx, errors and answers as specified."""

import re

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from api.conftest import serve
from api.openai_spec import spec
from tunesmith.api.app import create_app
from tunesmith.settings import Settings

EXAMPLES = 12
"""For each operation and each kind of input."""
BOUNDED = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
MODES = {"valid": GenerationMode.POSITIVE, "hostile": GenerationMode.NEGATIVE}


OURS = create_app(Settings()).openapi()


def operations():
    """Name -> operation; of OpenAI's those that we have too, for they say more about bodies than ours."""
    have = {(method, _shape(path)) for path, methods in OURS["paths"].items() for method in methods}
    found = {}
    for whose, document, prefix in (("ours", OURS, ""), ("openai", spec(), "/v1")):
        for result in schemathesis.openapi.from_dict(document).get_all_operations():
            operation = result.ok()
            if (operation.method, _shape(prefix + operation.path)) in have:
                found[f"{whose}: {operation.method.upper()} {operation.path}"] = operation
    return found


def _shape(path):
    return re.sub(r"\{[^}]+\}", "{}", path)


OPERATIONS = operations()


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    with serve(Settings(data_dir=tmp_path_factory.mktemp("fuzzed"), threads=1, lazy=True)) as running:
        yield running


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_any_input_is_answered_properly(fuzzed, name, mode):
    """Shapes are judged by the witness around the app, when the module ends."""
    base = f"http://127.0.0.1:{fuzzed.port}" + ("/v1" if name.startswith("openai") else "")

    @given(case=OPERATIONS[name].as_strategy(generation_mode=MODES[mode]))
    @BOUNDED
    def ask(case):
        answer = case.call(base_url=base, headers={"Authorization": f"Bearer {fuzzed.key}"})
        assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text[:500]}"

    try:
        ask()
    except Unsatisfiable:
        assert mode == "hostile", "every operation has valid input"  # but not each has something to get wrong
