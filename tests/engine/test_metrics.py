"""What Prometheus reads is what happened."""

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from engine.fakes import make_sequence
from tunesmith.engine.core import Stats
from tunesmith.engine.metrics import Meter
from tunesmith.engine.sequence import Sequence, Times

STATS = Stats(
    running=2, waiting=3, waiting_batch=1, refused=1, prompt_tokens=100, cached_prompt_tokens=64, generated_tokens=40,
    preemptions=1, finished={"stop": 4, "length": 2}, steps=50, prefix_queried_tokens=96, prefix_hit_tokens=64, blocks_used=7,
    blocks_total=10, rows=32,
)


def finished(times: Times, num_tokens: int) -> Sequence:
    sequence = make_sequence(1, [1, 2])
    sequence.tokens += [3] * num_tokens
    sequence.times = times
    return sequence


def values(meter: Meter) -> dict[tuple[str, str], float]:
    samples = [s for family in text_string_to_metric_families(meter.text().decode()) for s in family.samples]
    return {(sample.name, sample.labels.get("reason", sample.labels.get("le", ""))): sample.value for sample in samples}


def test_counters_and_gauges_are_the_cores_at_the_time_of_asking() -> None:
    counted = [STATS]
    meter = Meter("a/base", lambda: counted[0], lambda: 5)
    counted[0] = replace(STATS, running=9)
    told = values(meter)
    assert told["tunesmith_engine_running", ""] == 9
    assert told["tunesmith_engine_cached_prompt_tokens_total", ""] == 64
    assert told["tunesmith_engine_adapters", ""] == 5
    assert told["tunesmith_engine_finished_total", "stop"] == 4


def test_a_finished_sequence_is_counted_once_in_each_histogram_that_applies() -> None:
    meter = Meter("a/base", lambda: STATS, lambda: 0)
    meter.observe(finished(Times(arrived=10.0, begun=10.5, first_token=11.0, finished=13.0), 5))
    meter.observe(finished(Times(arrived=20.0, finished=21.0), 0))
    told = values(meter)
    assert told["tunesmith_engine_queue_seconds_sum", ""] == 0.5
    assert told["tunesmith_engine_time_to_first_token_seconds_sum", ""] == 1.0
    assert told["tunesmith_engine_time_per_output_token_seconds_sum", ""] == 0.5
    assert told["tunesmith_engine_request_seconds_count", ""] == 2
    assert told["tunesmith_engine_time_to_first_token_seconds_count", ""] == 1


def test_a_sequence_that_has_not_ended_is_not_counted() -> None:
    meter = Meter("a/base", lambda: STATS, lambda: 0)
    meter.observe(finished(Times(arrived=1.0, first_token=2.0), 3))
    assert values(meter)["tunesmith_engine_request_seconds_count", ""] == 0
