from pathlib import Path

import pytest

from bench.serve import report
from bench.serve.report import Row, compared


def test_a_ratio_is_the_median_of_pairs_not_the_pair_of_medians():
    row = compared("m", "8 at once", "vllm", [100, 300, 200], [50, 300, 400], at_least=1.0)
    assert row.ratio == pytest.approx(1.0)
    assert (row.ours, row.theirs, row.holds) == (200, 300, True)


def test_a_peer_that_failed_leaves_the_target_open():
    for theirs in ([], [50.0]):
        row = compared("m", "8 at once", "vllm", [100, 300], theirs, at_least=1.0, note="it died")
        assert row.ratio is None
        assert row.holds is None
        assert " ? " in report.plain([row])


def test_ours_that_failed_misses_the_target():
    assert compared("m", "8 at once", "vllm", [], [50, 60], at_least=1.0).holds is False


def test_a_figure_without_a_peer_is_held_to_its_own_target():
    assert Row("m", "", "-", ours=40, at_most=100).holds is True
    assert Row("m", "", "-", ours=140, at_most=100).holds is False
    assert Row("m", "", "-", ours=140).holds is None


def test_the_newest_rows_of_a_measurement_replace_the_older_ones(tmp_path: Path):
    out = tmp_path / "rows.jsonl"
    report.write_json_lines(out, [Row("a", "1", "-", 1), Row("a", "8", "-", 2), Row("b", "1", "-", 3)])
    report.write_json_lines(out, [Row("a", "1", "-", 4), Row("a", "8", "-", 5)])
    assert [(row.measurement, row.ours) for row in report.read_json_lines(out)] == [("a", 4), ("a", 5), ("b", 3)]


def test_measuring_one_thing_twice_in_a_row_keeps_the_second(tmp_path: Path):
    out = tmp_path / "rows.jsonl"
    for value in (1.0, 2.0):
        report.write_json_lines(out, [Row("a", "1", "-", value), Row("a", "8", "-", value)])
    assert [row.ours for row in report.read_json_lines(out)] == [2.0, 2.0]


def test_only_what_is_between_the_markers_of_the_page_changes():
    page = f"# Results\n{report.BEGIN}\nstale\n{report.END}\n## More\n"
    changed = report.replace_section(page, report.markdown([Row("m", "a | b", "-", 1234.5)]))
    assert changed.startswith("# Results\n")
    assert changed.endswith("## More\n")
    assert "stale" not in changed
    assert "| m | a / b | 1,234 |" in changed.replace("1,235", "1,234")


@pytest.mark.parametrize("page", ["nothing", report.BEGIN, report.END + report.BEGIN, 2 * (report.BEGIN + report.END)])
def test_a_page_without_its_markers_is_not_written(page: str):
    with pytest.raises(ValueError, match="markers"):
        report.replace_section(page, "new")
