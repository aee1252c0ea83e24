"""Projects: found by id or name, one working project per name, the default one stays."""

import pytest

from tunesmith.db import projects
from tunesmith.db.migrate import open_database
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.types import DEFAULT_PROJECT


@pytest.fixture
def connection(where):
    database = open_database(*where)
    with database.write() as connection:
        yield connection
    database.close()


def test_the_default_project_is_there_and_stays(connection):
    assert projects.find(connection, "default").id == DEFAULT_PROJECT
    with pytest.raises(InvalidRequest, match="stays"):
        projects.archive(connection, DEFAULT_PROJECT)


def test_a_name_belongs_to_one_working_project(connection):
    first = projects.create(connection, "support", {"tokens_per_day": 5})
    assert projects.get(connection, first.id) == first
    with pytest.raises(InvalidRequest, match="'support'"):
        projects.create(connection, "support")
    with pytest.raises(InvalidRequest, match="'support'"):
        projects.change(connection, projects.create(connection, "sales").id, name="support")
    projects.archive(connection, first.id)
    assert projects.find(connection, "support" if projects.create(connection, "support") else "").archived is None


def test_archived_projects_are_listed_on_request_only(connection):
    gone = projects.archive(connection, projects.create(connection, "gone").id)
    assert gone.archived is not None
    listed, _ = projects.list_page(connection, after=None, limit=10)
    assert gone not in listed
    assert gone in projects.list_page(connection, after=None, limit=10, include_archived=True)[0]
    with pytest.raises(NotFound):
        projects.find(connection, "gone")
