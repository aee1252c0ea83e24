"""Takes away what nobody can reach any more: expired files, parts of uploads that ended, blobs that a kill left without a
row, and what was delivered long ago."""

import asyncio

import structlog
from fastapi.concurrency import run_in_threadpool

from tunesmith.db import blobs, files, uploads, webhooks
from tunesmith.db.session import Database
from tunesmith.errors import TunesmithError
from tunesmith.store import BlobStore
from tunesmith.types import unix_now

SWEEP_SECONDS = 60.0
ORPHAN_SECONDS = 24 * 3600.0
"""A blob is put first and gets its row a moment later; after this long it is nobody's."""
SWEEPS_PER_SEARCH = 24 * 60
"""The store is searched for blobs without a row once a day, and at the start."""

DELIVERY_SECONDS = 30 * 24 * 3600
"""How long it can be looked up what became of a webhook's delivery."""

log = structlog.get_logger("tunesmith.api")


async def sweeping(database: Database, store: BlobStore) -> None:
    """Until it is cancelled."""
    sweeps = 0
    while True:
        try:
            await run_in_threadpool(sweep, database, store)
            if sweeps % SWEEPS_PER_SEARCH == 0:
                await run_in_threadpool(search, database, store)
                await run_in_threadpool(forget, database)
        except TunesmithError as error:  # storage that is full or away: the next sweep tries again
            log.warning("could not sweep", why=str(error))
        sweeps += 1
        await asyncio.sleep(SWEEP_SECONDS)


def sweep(database: Database, store: BlobStore) -> int:
    """Expired files and uploads; how many blobs went with them."""
    with database.write() as connection:
        gone = [file.sha256 for file in files.remove_expired(connection)]
        gone += [part.sha256 for part in uploads.end_expired(connection)]
        free = blobs.unused(connection, gone)
        for sha256 in free:
            store.delete(sha256)
    return len(free)


def forget(database: Database) -> int:
    """Deliveries of webhooks that ended long ago; how many."""
    with database.write() as connection:
        return webhooks.prune(connection, unix_now() - DELIVERY_SECONDS)


def search(database: Database, store: BlobStore, seconds: float = ORPHAN_SECONDS) -> int:
    """Blobs older than `seconds` that no row names, and what was never finished; how many."""
    num = store.clear(seconds)
    for sha256 in store.list_old(seconds):
        with database.read() as connection:
            if blobs.is_used(connection, sha256):
                continue
        with database.write() as connection:
            for free in blobs.unused(connection, [sha256]):
                store.delete(free)
                num += 1
    return num
