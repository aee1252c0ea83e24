"""What Prometheus reads is what happened."""

from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from tunesmith.engine.metrics import Meter, Times


@dataclass
class Counted:
    running: int = 2
    waiting: int = 3
    waiting_batch: int = 1
    prompt_tokens: int = 100
    cached_prompt_tokens: int = 64
    generated_tokens: int = 40
    preemptions: int = 1
    steps: int = 50
    blocks_used: int = 7
    blocks_total: int = 10
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 4, "length": 2})


def values(meter: Meter) -> dict[tuple[str, str], float]:
    samples = [s for family in text_string_to_metric_families(meter.text().decode()) for s in family.samples]
    return {(sample.name, sample.labels.get("reason", sample.labels.get("le", ""))): sample.value for sample in samples}


def test_counters_and_gauges_are_the_cores_at_the_time_of_asking() -> None:
    counted = Counted()
    meter = Meter("a/base", lambda: counted, lambda: 5)
    counted.running = 9
    told = values(meter)
    assert told["tunesmith_engine_running", ""] == 9
    assert told["tunesmith_engine_cached_prompt_tokens_total", ""] == 64
    assert told["tunesmith_engine_adapters", ""] == 5
    assert told["tunesmith_engine_finished_total", "stop"] == 4


def test_a_finished_sequence_is_counted_once_in_each_histogram_that_applies() -> None:
    meter = Meter("a/base", Counted, lambda: 0)
    meter.observe(Times(arrived=10.0, admitted=10.5, first_token=11.0, finished=13.0), num_tokens=5)
    meter.observe(Times(arrived=20.0, finished=21.0), num_tokens=0)
    told = values(meter)
    assert told["tunesmith_engine_queue_seconds_sum", ""] == 0.5
    assert told["tunesmith_engine_time_to_first_token_seconds_sum", ""] == 1.0
    assert told["tunesmith_engine_time_per_output_token_seconds_sum", ""] == 0.5
    assert told["tunesmith_engine_request_seconds_count", ""] == 2
    assert told["tunesmith_engine_time_to_first_token_seconds_count", ""] == 1


def test_a_sequence_that_has_not_ended_is_not_counted() -> None:
    meter = Meter("a/base", Counted, lambda: 0)
    meter.observe(Times(arrived=1.0, first_token=2.0), num_tokens=3)
    assert values(meter)["tunesmith_engine_request_seconds_count", ""] == 0
