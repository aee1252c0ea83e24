"""What the engine tells Prometheus: its counters, and how long requests took. Knows no torch and no HTTP."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunesmith.engine.core import Stats
from tunesmith.engine.sequence import Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


GAUGES = {
    "running": "Sequences in the batch.",
    "waiting": "Sequences that wait for a place.",
    "waiting_batch": "Of those, the ones of the batch class.",
    "rows": "Most sequences that may run at once.",
    "blocks_used": "Stored blocks of the prefix cache that hold something.",
    "blocks_total": "Blocks that the prefix cache may hold.",
}
COUNTERS = {
    "prompt_tokens": "Tokens of prompts, computed or found in the prefix cache.",
    "cached_prompt_tokens": "Tokens of prompts that were found in the prefix cache.",
    "generated_tokens": "Tokens that were sampled.",
    "refused": "Sequences that were turned away.",
    "prefix_queried_tokens": "Tokens in whole blocks that were looked for in the prefix cache.",
    "prefix_hit_tokens": "Those of them that were found.",
    "preemptions": "Sequences that lost their place and are computed anew.",
    "steps": "Forward passes.",
}


class Meter:
    """Histograms of finished sequences, and the core's counters when they are asked for."""

    def __init__(self, base: str, stats: Callable[[], Stats], num_adapters: Callable[[], int]):
        self._registry = CollectorRegistry()
        self._registry.register(_Counters(base, stats, num_adapters))
        self._seconds = {
            name: Histogram(
                f"tunesmith_engine_{name}_seconds", text, ["base"], buckets=SECONDS, registry=self._registry
            ).labels(base)
            for name, text in (
                ("queue", "From arrival to the first step that computed it."),
                ("time_to_first_token", "From arrival to the first sampled token."),
                ("time_per_output_token", "Mean time between the tokens of one sequence."),
                ("request", "From arrival to the end."),
            )
        }

    def observe(self, sequence: Sequence) -> None:
        """Takes a finished sequence; may be called from the core's thread."""
        times = sequence.times
        if times.arrived is None or times.finished is None:
            return
        self._seconds["request"].observe(times.finished - times.arrived)
        if times.begun is not None:
            self._seconds["queue"].observe(times.begun - times.arrived)
        if times.first_token is not None:
            self._seconds["time_to_first_token"].observe(times.first_token - times.arrived)
            if sequence.num_completion_tokens > 1:
                mean = (times.finished - times.first_token) / (sequence.num_completion_tokens - 1)
                self._seconds["time_per_output_token"].observe(mean)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)


class _Counters(Collector):
    def __init__(self, base: str, stats: Callable[[], Stats], num_adapters: Callable[[], int]):
        self._base = base
        self._stats = stats
        self._num_adapters = num_adapters

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        for name, text in GAUGES.items():
            yield self._family(GaugeMetricFamily, name, text, getattr(stats, name))
        for name, text in COUNTERS.items():
            yield self._family(CounterMetricFamily, name, text, getattr(stats, name))
        yield self._family(GaugeMetricFamily, "adapters", "Adapters that are loaded.", self._num_adapters())
        finished = CounterMetricFamily("tunesmith_engine_finished", "Sequences that ended, by reason.", labels=["base", "reason"])
        for reason, count in stats.finished.items():
            finished.add_metric([self._base, reason], count)
        yield finished

    def _family(self, kind: type[GaugeMetricFamily] | type[CounterMetricFamily], name: str, text: str, value: float) -> Metric:
        family = kind(f"tunesmith_engine_{name}", text, labels=["base"])
        family.add_metric([self._base], value)
        return family
