"""API keys: `ts_<id>_<secret>_<checksum>`, kept as an HMAC of the whole text, which is shown once, when the key is made.

A random secret of 190 bits needs no slow hash: nobody guesses it, and a lookup costs microseconds. The HMAC's key lies outside
the database (`secret.py`). The checksum tells a mistyped key without a look into the database. What a role or a scope opens is
the API's matter.
"""

import hashlib
import hmac
import secrets
import string
import zlib
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from tunesmith.db.paging import page
from tunesmith.db.secret import purpose_key
from tunesmith.db.tables import keys
from tunesmith.errors import NotFound, Unauthorized
from tunesmith.types import DEFAULT_PROJECT, Limits, Role, unix_now

ALPHABET = string.ascii_letters + string.digits
HMAC = "hmac:"
"""Opens the hash of a key that was made since there is a server secret; without it, it is a plain sha256."""


@dataclass(frozen=True)
class Key:
    """`id` is the public part of the key. Times are seconds since 1970 or None.

    `scopes` narrows what the role opens, `models` (ids and patterns such as `ft:*`) whom it may ask; None narrows nothing.
    `successor` is the key that was made to replace it. `last_used` is right to the minute. `payer` is the key that ordered the
    job whose worker holds this one: what the worker asks counts as asked by that.
    """

    id: str
    hash: str
    name: str
    created: int
    revoked: int | None = None
    project: str = DEFAULT_PROJECT
    role: Role = "owner"
    scopes: list[str] | None = None
    models: list[str] | None = None
    limits: Limits | None = None
    expires: int | None = None
    last_used: int | None = None
    successor: str | None = None
    payer: str | None = None

    @property
    def account(self) -> str:
        """The key whose limits and usage a question counts in."""
        return self.payer or self.id

    def works_at(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


def from_row(row: Row[Any]) -> Key:
    values = dict(row._mapping)
    del values["num"]
    return Key(**values)


def to_row(key: Key) -> dict[str, Any]:
    return asdict(key)


def pepper(connection: Connection) -> bytes:
    """The HMAC's key; `open_database` puts the server's secret on every connection."""
    return purpose_key(connection.get_execution_options()["secret"], "api-keys")


def digest(text: str, pepper: bytes) -> str:
    return HMAC + hmac.digest(pepper, text.encode(), hashlib.sha256).hex()


def create(
    connection: Connection,
    name: str,
    *,
    project: str = DEFAULT_PROJECT,
    role: Role = "owner",
    scopes: list[str] | None = None,
    models: list[str] | None = None,
    limits: Limits | None = None,
    expires: int | None = None,
    payer: str | None = None,
) -> tuple[Key, str]:
    """A new key and its text, which is kept nowhere."""
    text = _new_text()
    key = Key(
        id=id_of(text), hash=digest(text, pepper(connection)), name=name, created=unix_now(), project=project, role=role,
        scopes=scopes, models=models, limits=limits, expires=expires, payer=payer,
    )
    connection.execute(insert(keys).values(to_row(key)))
    return key, text


def _new_text() -> str:
    body = f"ts_{_random(10)}_{_random(32)}"
    return f"{body}_{_checksum(body)}"


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    """Six characters of the CRC-32, as scanners for leaked secrets know it."""
    rest, letters = zlib.crc32(body.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, len(ALPHABET))
        letters += ALPHABET[digit]
    return letters


def id_of(text: str) -> str:
    """The id in a key's text. Raises Unauthorized for what is no key of ours, or was mistyped."""
    parts = text.split("_")
    has_checksum = len(parts) == 4
    if has_checksum and _checksum(text.rpartition("_")[0]) != parts[3]:
        raise Unauthorized("The API key is mistyped: its checksum is wrong.", hint="Copy it again, whole.")
    if parts[0] != "ts" or not (has_checksum or len(parts) == 3):  # keys of the first version have no checksum
        raise wrong_key()
    return f"ts_{parts[1]}"


def wrong_key() -> Unauthorized:
    return Unauthorized("Incorrect API key provided.", hint="Make one with `tunesmith keys create NAME`.")


def check(connection: Connection, text: str) -> Key:
    """The key whose text this is. Raises Unauthorized for any other text, and for a key that is revoked or has expired."""
    row = connection.execute(select(keys).where(keys.c.id == id_of(text))).first()
    key = None if row is None else from_row(row)
    if key is None or not _matches(key, text, pepper(connection)) or key.revoked is not None:
        raise wrong_key()
    if not key.works_at(unix_now()):
        raise Unauthorized("The API key has expired.", hint="Make another one, or rotate keys before they expire.")
    return key


def _matches(key: Key, text: str, pepper: bytes) -> bool:
    expected = digest(text, pepper) if key.hash.startswith(HMAC) else hashlib.sha256(text.encode()).hexdigest()
    return hmac.compare_digest(key.hash, expected)


def get(connection: Connection, key_id: str, project: str | None) -> Key:
    """The key of that id in that project, or in any when None. Raises NotFound."""
    mine = keys.c.id == key_id if project is None else (keys.c.id == key_id) & (keys.c.project == project)
    row = connection.execute(select(keys).where(mine)).first()
    if row is None:
        raise NotFound(f"No such key: {key_id[:80]}.", hint="`tunesmith keys list` shows the ids.", param="key_id")
    return from_row(row)


def find(connection: Connection, id_or_name: str) -> Key:
    """The key of that id, or the only working one of that name. Raises NotFound."""
    match = (keys.c.id == id_or_name) | ((keys.c.name == id_or_name) & keys.c.revoked.is_(None))
    rows = connection.execute(select(keys).where(match)).all()
    if len(rows) != 1:
        many = "More than one key is" if rows else "No working key is"
        raise NotFound(f"{many} called {id_or_name!r}.", hint="`tunesmith keys list` shows the ids.", param="key")
    return from_row(rows[0])


def list_all(connection: Connection) -> list[Key]:
    """Oldest first, the revoked ones too."""
    return [from_row(row) for row in connection.execute(select(keys).order_by(keys.c.num))]


def list_page(connection: Connection, project: str | None, *, after: str | None, limit: int) -> tuple[list[Key], bool]:
    """Newest first, and whether there are more; of all projects when None."""
    where = [] if project is None else [keys.c.project == project]
    found = page(connection, keys, *where, after=after, limit=limit)
    return [from_row(row) for row in found.rows], found.has_more


def count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(keys)).scalar_one()


def revoke(connection: Connection, id_or_name: str) -> Key:
    """Revokes the key of that id, or the only working one of that name. Raises NotFound."""
    key = find(connection, id_or_name)
    if key.revoked is not None:
        raise NotFound(f"No working key is called {id_or_name!r}.", hint="`tunesmith keys list` shows the ids.", param="key")
    connection.execute(update(keys).where(keys.c.id == key.id).values(revoked=unix_now()))
    return get(connection, key.id, None)


def revoke_named(connection: Connection, name: str, project: str) -> None:
    """Revokes all working keys of that name in the project; there may be none."""
    mine = (keys.c.name == name) & (keys.c.project == project) & keys.c.revoked.is_(None)
    connection.execute(update(keys).where(mine).values(revoked=unix_now()))


def rotate(connection: Connection, key: Key, overlap_seconds: int) -> tuple[Key, str]:
    """A successor with the same rights, and its text; the old key works for `overlap_seconds` more, unless it ends before.

    Raises Unauthorized for a key that does not work any more.
    """
    now = unix_now()
    if not key.works_at(now):
        raise Unauthorized(f"The key {key.id} does not work any more.", hint="Make a new one.")
    made, text = create(
        connection, key.name, project=key.project, role=key.role, scopes=key.scopes, models=key.models, limits=key.limits,
        expires=None if key.expires is None else key.expires - key.created + now,
    )
    end = now + overlap_seconds
    expires = end if key.expires is None else min(key.expires, end)
    connection.execute(update(keys).where(keys.c.id == key.id).values(expires=expires, successor=made.id))
    return made, text


def change(connection: Connection, key: Key, **values: Any) -> Key:
    """The key with another name, other scopes, models or limits."""
    if values:
        connection.execute(update(keys).where(keys.c.id == key.id).values(values))
    return get(connection, key.id, key.project)


def touch(connection: Connection, last_used: dict[str, int]) -> None:
    """Writes when keys were last used: id -> time."""
    for key_id, when in last_used.items():
        connection.execute(update(keys).where(keys.c.id == key_id).values(last_used=when))
