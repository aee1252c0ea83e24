"""Names of models are remembered for half a second at most, and never past a write of this server's."""

from tunesmith.api.names import FRESH_SECONDS, Names
from tunesmith.serving.routing import base_target


def test_a_name_is_remembered_per_project_until_it_is_old_or_something_was_written():
    now = [0.0]
    names, target = Names(lambda: now[0]), base_target("x")
    names.put("x", "proj_a", target, 3)
    assert names.get("x", "proj_a", 3) == target
    assert names.get("x", "proj_b", 3) is None
    assert names.get("x", "proj_a", 4) is None
    now[0] = FRESH_SECONDS + 0.01
    assert names.get("x", "proj_a", 3) is None


def test_what_was_read_before_a_write_is_not_believed_after_it():
    names = Names(lambda: 0.0)
    names.put("x", "p", base_target("old"), 1)
    assert names.get("x", "p", 2) is None
    names.put("x", "p", base_target("new"), 2)
    assert names.get("x", "p", 2) == base_target("new")
    names.forget()
    assert names.get("x", "p", 2) is None
