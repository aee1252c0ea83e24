"""Settings of a server: where a worker on its own machine finds it."""

import pytest

from tunesmith.settings import Settings


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9/v1"),
        ("0.0.0.0", "http://127.0.0.1:9/v1"),
        ("::", "http://[::1]:9/v1"),
        ("192.0.2.7", "http://192.0.2.7:9/v1"),
    ],
)
def test_a_server_that_listens_everywhere_is_asked_on_loopback(host, url):
    assert Settings(host=host, port=9).own_url == url
