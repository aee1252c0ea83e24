"""A model's name means a base, a fine-tuned model of one's own project, or what an alias says."""

import pytest

from tunesmith.api.resolve import resolve
from tunesmith.db import jobs, models
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.settings import Settings, to_aliases
from tunesmith.types import new_id

HELLO = [{"role": "user", "content": "Repeat: river piano"}]


@pytest.fixture
def served(talking):
    return talking


def test_a_script_that_names_a_model_of_openais_runs_on_the_base_that_the_alias_says(client):
    asked = {"messages": HELLO, "temperature": 0, "max_tokens": 8}
    meant = client.chat.completions.create(model="tunesmith/tiny", **asked)
    answer = client.chat.completions.create(model="gpt-4o-mini", **asked)
    assert answer.model == "gpt-4o-mini"
    assert answer.choices[0].message == meant.choices[0].message
    assert answer.system_fingerprint == meant.system_fingerprint
    listed = {model.id: model.to_dict() for model in client.models.list()}
    assert listed["gpt-4o-mini"]["base"] == "tunesmith/tiny"


def test_a_foreign_projects_model_does_not_exist(served):
    job = jobs.Job(id=new_id("ftjob"), recipe={}, order={}, created=1)
    with served.desk.database.write() as connection:
        jobs.add(connection, job)
        theirs = models.FineTuned("ft:theirs", "tunesmith/tiny", "none", "x", "abc", job.id, 1, project="proj_theirs")
        models.add(connection, theirs)
    assert resolve(served.desk, "ft:theirs", "proj_theirs").adapter.content_hash == "abc"
    with pytest.raises(NotFound) as caught:
        resolve(served.desk, "ft:theirs", "proj_default")
    assert caught.value.code == "model_not_found"


def test_aliases_come_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("TUNESMITH_ALIASES", "gpt-4o-mini=tunesmith/tiny,gpt-4.1=tunesmith/tiny")
    assert Settings.from_environment().aliases == {"gpt-4o-mini": "tunesmith/tiny", "gpt-4.1": "tunesmith/tiny"}


@pytest.mark.parametrize("pairs", [["tunesmith/tiny"], ["=x"], ["x="], ["tunesmith/tiny=other"], ["a=b", "b=tunesmith/tiny"]])
def test_what_is_no_alias_is_refused_at_the_start(pairs):
    with pytest.raises(InvalidRequest):
        Settings(aliases=to_aliases(pairs))
