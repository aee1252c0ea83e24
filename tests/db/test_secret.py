"""The server's secret: made once, readable by its owner only, never cut short in silence."""

import pytest

from tunesmith.db.secret import NUM_BYTES, purpose_key, server_secret
from tunesmith.errors import TunesmithError


def test_it_is_made_once_for_its_owner_only(tmp_path):
    first = server_secret(tmp_path / "secret")
    assert len(first) == NUM_BYTES
    assert server_secret(tmp_path / "secret") == first
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_each_purpose_has_a_key_of_its_own(tmp_path):
    secret = server_secret(tmp_path / "secret")
    assert len({purpose_key(secret, "api-keys"), purpose_key(secret, "webhooks"), secret}) == 3


def test_one_that_was_cut_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(TunesmithError, match="damaged"):
        server_secret(tmp_path / "secret")
