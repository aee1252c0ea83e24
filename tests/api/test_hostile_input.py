"""Whatever is sent to any operation of our OpenAPI document, or of OpenAI's: no 5xx, errors and answers as specified."""

import os
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

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3"))
"""For each operation and each kind of input; `make fuzz` asks for a hundred."""
BOUNDED = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
MODES = {"valid": GenerationMode.POSITIVE, "hostile": GenerationMode.NEGATIVE}


OURS = create_app(Settings()).openapi()
OPENAIS = spec() | {"paths": {f"/v1{path}": methods for path, methods in spec()["paths"].items()}}


def operations():
    """Name -> operation: OpenAI's word for those that we share, for it says more about bodies than ours; then our own."""
    ours, openais = ({_name(each.path, each.method): each for each in _all(document)} for document in (OURS, OPENAIS))
    shared = {name: each for name, each in openais.items() if name in ours}
    return shared | {name: each for name, each in ours.items() if name not in shared}


def _all(document):
    return [result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()]


def _name(path, method):
    return f"{method.upper()} {_shape(path)}"


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
    @given(case=OPERATIONS[name].as_strategy(generation_mode=MODES[mode]))
    @BOUNDED
    def ask(case):
        answer = case.call(base_url=f"http://127.0.0.1:{fuzzed.port}", headers={"Authorization": f"Bearer {fuzzed.key}"})
        assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text[:500]}"

    try:
        ask()
    except Unsatisfiable:
        assert mode == "hostile", "every operation has valid input"  # but not each has something to get wrong
