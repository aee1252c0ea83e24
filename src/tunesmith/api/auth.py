"""Who asks: the one parser of the Authorization header."""

from tunesmith.db import keys
from tunesmith.db.session import Database
from tunesmith.errors import Unauthorized

MAX_KEY_LENGTH = 200


def bearer(values: list[str]) -> str:
    """The key in `Authorization: Bearer KEY`. Raises Unauthorized when there is none, or more than one."""
    if not values:
        raise Unauthorized("You didn't provide an API key.", hint="Send it as `Authorization: Bearer YOUR_KEY`.")
    scheme, _, key = values[0].partition(" ")
    key = key.strip()
    if len(values) != 1 or scheme.lower() != "bearer" or not key or len(key) > MAX_KEY_LENGTH:
        raise Unauthorized("The Authorization header cannot be read.", hint="Send it once, as `Authorization: Bearer YOUR_KEY`.")
    return key


def check(database: Database, values: list[str]) -> keys.Key:
    """The key of a request. Raises Unauthorized."""
    text = bearer(values)
    with database.read() as connection:
        return keys.check(connection, text)
