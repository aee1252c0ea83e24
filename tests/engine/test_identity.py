"""Caches are shared, and answers signed, by all that decides what is computed."""

import re

from tunesmith.engine.identity import cache_root, fingerprint

BASE, ADAPTER = "a" * 64, "b" * 64


def test_a_cache_is_shared_by_the_same_base_adapter_and_tenant_only() -> None:
    roots = [
        cache_root(BASE, None, None), cache_root(ADAPTER, None, None), cache_root(BASE, ADAPTER, None),
        cache_root(BASE, None, "tenant"), cache_root(BASE, ADAPTER, "tenant"), cache_root(BASE, ADAPTER, "tenant "),
    ]
    assert len(set(roots)) == len(roots)
    assert all(len(root) == 32 for root in roots)
    assert cache_root(BASE, ADAPTER, "tenant") == cache_root(BASE, ADAPTER, "tenant")


def test_a_fingerprint_tells_base_precision_and_adapter_apart() -> None:
    prints = {
        fingerprint(BASE, "none", None), fingerprint(BASE, "nf4", None), fingerprint(BASE, "none", ADAPTER),
        fingerprint(ADAPTER, "none", None),
    }
    assert len(prints) == 4
    assert all(re.fullmatch("ts-[0-9a-f]{16}", one) for one in prints)
