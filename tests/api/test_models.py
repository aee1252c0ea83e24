"""Models are listed, found by ids with slashes, and only fine-tuned ones can be deleted."""

import openai
import pytest
from orders import tuning_job

from tunesmith.db import jobs, models
from tunesmith.db.models import FineTuned

TUNED = "ft:tunesmith/tiny:local:mine:a1B2c3D4"


@pytest.fixture
def tuned(served):
    """A row only: its adapter was never made."""
    with served.desk.database.write() as connection:
        jobs.add(connection, tuning_job("ftjob-m", status="succeeded"))
        models.add(connection, FineTuned(TUNED, "tunesmith/tiny", "none", "runs/ftjob-m/artifacts/adapter", "00", "ftjob-m", 1))
    return TUNED


def test_bases_and_tuned_models_are_listed_found_and_deleted(client, tuned):
    assert [model.id for model in client.models.list()] == ["tunesmith/tiny", tuned]
    assert client.models.retrieve("tunesmith/tiny").owned_by == "tunesmith"
    assert client.models.retrieve(tuned).to_dict()["base"] == "tunesmith/tiny"
    assert client.models.delete(tuned).deleted is True
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve(tuned)
    assert caught.value.code == "model_not_found"


def test_a_base_stays(client):
    with pytest.raises(openai.BadRequestError, match="is a base and stays"):
        client.models.delete("tunesmith/tiny")
