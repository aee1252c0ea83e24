"""Pages of several engines become one that Prometheus can read: a family once, each figure with its engine's labels."""

from prometheus_client.parser import text_string_to_metric_families

from tunesmith.serving.exposition import merge

PAGE = """# HELP engine_tokens Tokens.
# TYPE engine_tokens counter
engine_tokens_total{base="b"} %d
# HELP engine_seconds Seconds.
# TYPE engine_seconds histogram
engine_seconds_bucket{le="1.0"} 1
engine_seconds_bucket{le="+Inf"} 2
engine_seconds_count 2
engine_seconds_sum 3.5
"""


def test_two_engines_of_one_base_are_told_apart() -> None:
    text = merge({("b", "none", 0): PAGE % 5, ("b", "none", 1): PAGE % 7}).decode()
    assert text.count("# TYPE engine_tokens_total counter") == 1
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    tokens = {sample.labels["replica"]: sample.value for sample in samples if sample.name == "engine_tokens_total"}
    assert tokens == {"0": 5.0, "1": 7.0}
    assert len([sample for sample in samples if sample.name == "engine_seconds_bucket"]) == 4


def test_without_engines_the_page_is_empty() -> None:
    assert merge({}) == b""
