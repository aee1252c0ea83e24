"""The metrics of all engines as one page for Prometheus: the same figures, each with its engine's labels. Knows no HTTP."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tunesmith.types import Quantization

Engine = tuple[str, Quantization, int]
"""Base, precision, number of the replica."""


class _Pages(Collector):
    def __init__(self, pages: Mapping[Engine, str]):
        self._pages = pages

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for (base, quantization, replica), page in self._pages.items():
            labels = {"base": base, "quantization": quantization, "replica": str(replica)}
            for family in text_string_to_metric_families(page):
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    merged.add_sample(sample.name, sample.labels | labels, sample.value)
        yield from families.values()


def merge(pages: Mapping[Engine, str]) -> bytes:
    """One page of what each engine told."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Pages(pages))
    return generate_latest(registry)
