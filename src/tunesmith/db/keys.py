"""API keys: `ts_<id>_<secret>`. Kept as a sha256 of the whole key; the text is shown once, when it is made.

A random secret of 190 bits needs no slow hash: nobody guesses it, and a lookup costs microseconds.
"""

import hashlib
import hmac
import secrets
import string
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from tunesmith.db.tables import keys
from tunesmith.errors import NotFound, Unauthorized
from tunesmith.types import DEFAULT_PROJECT, unix_now

ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Key:
    """`id` is the public prefix of the key; `hash` is the sha256 of its whole text; `revoked` is a time or None."""

    id: str
    hash: str
    name: str
    created: int
    revoked: int | None = None
    project: str = DEFAULT_PROJECT


def from_row(row: Row[Any]) -> Key:
    values = dict(row._mapping)
    del values["num"]
    return Key(**values)


def to_row(key: Key) -> dict[str, Any]:
    return asdict(key)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def create(connection: Connection, name: str) -> tuple[Key, str]:
    """A new key and its text, which is kept nowhere."""
    key_id = f"ts_{_random(10)}"
    text = f"{key_id}_{_random(32)}"
    key = Key(id=key_id, hash=_hash(text), name=name, created=unix_now())
    connection.execute(insert(keys).values(to_row(key)))
    return key, text


def check(connection: Connection, text: str) -> Key:
    """The key whose text this is. Raises Unauthorized for any other text, and for a revoked key."""
    row = connection.execute(select(keys).where(keys.c.id == text.rpartition("_")[0])).first()
    key = None if row is None else from_row(row)
    if key is None or not hmac.compare_digest(key.hash, _hash(text)) or key.revoked is not None:
        raise Unauthorized("Incorrect API key provided.", hint="Make one with `tunesmith keys create NAME`.")
    return key


def list_all(connection: Connection) -> list[Key]:
    """Oldest first, the revoked ones too."""
    return [from_row(row) for row in connection.execute(select(keys).order_by(keys.c.num))]


def count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(keys)).scalar_one()


def revoke(connection: Connection, id_or_name: str) -> Key:
    """Revokes the key of that id, or the only working one of that name. Raises NotFound."""
    match = (keys.c.id == id_or_name) | (keys.c.name == id_or_name)
    rows = connection.execute(select(keys).where(match, keys.c.revoked.is_(None))).all()
    if len(rows) != 1:
        many = "More than one key is" if rows else "No working key is"
        raise NotFound(f"{many} called {id_or_name!r}.", hint="`tunesmith keys list` shows the ids.", param="key")
    now = unix_now()
    connection.execute(update(keys).where(keys.c.id == rows[0].id).values(revoked=now))
    return from_row(connection.execute(select(keys).where(keys.c.id == rows[0].id)).one())
