"""Prices have a source and a date, say so when they are old, and give way to a user's own."""

from datetime import date

import pytest

from tunesmith.errors import InvalidRequest
from tunesmith.plan.gpus import GPUS, by_driver_name
from tunesmith.plan.prices import PROVIDERS, for_gpus, load

TODAY = date(2026, 11, 21)


def own(tmp_path, text):
    path = tmp_path / "prices.csv"
    path.write_text("provider,gpu,gpus,usd_per_gpu_hour,spot_usd_per_gpu_hour,date\n" + text)
    return path


def test_every_row_has_provider_source_and_date_and_names_a_gpu_of_the_table():
    for row in load():
        assert row.provider in PROVIDERS
        assert row.source
        assert row.date.year >= 2026
        assert row.gpu in GPUS


def test_every_provider_has_prices_or_a_reason_why_not():
    named = {row.provider for row in load()}
    assert {name for name in PROVIDERS if name not in named} == {"SageMaker", "Cloudera", "Colab"}
    assert all(PROVIDERS[name] for name in PROVIDERS if name not in named)


def test_a_price_says_its_age_when_it_is_older_than_thirty_days_or_undated():
    rows = {row.instance: row for row in load()}
    assert rows["p4d.24xlarge"].age(TODAY) == "124 days old"
    assert rows["p4d.24xlarge"].age(date(2026, 8, 1)) == ""
    assert rows["1x-L40S"].age(TODAY) == "undated (read on 2026-11-20)"


def test_a_users_row_replaces_the_shipped_one_and_adds_what_there_is_not(tmp_path):
    rows = load(own(tmp_path, "aws,A100-40GB,8,1.5,,2026-11-20\nOur cellar,rtx3090,1,0.05,,2026-11-20\n"))
    assert [row.usd for row in rows if row.instance == "p4d.24xlarge"] == []
    assert next(row for row in rows if row.gpu == "A100-40GB" and row.provider == "aws").usd == 1.5
    assert next(row for row in rows if row.provider == "Our cellar").gpu == "RTX3090"


def test_a_spot_price_of_nothing_is_unknown_and_not_free(tmp_path):
    rows = load(own(tmp_path, "X,T4,1,0.5,0.00,2026-11-20\n"))
    assert rows[-1].spot_usd is None


@pytest.mark.parametrize(
    "line", ["X,T5,1,0.5,,2026-11-20", "X,T4,1,cheap,,2026-11-20", "X,T4,1,0.5,,yesterday", "X,T4,0,1,,2026-11-20"]
)
def test_a_wrong_row_is_named_by_its_line(tmp_path, line):
    with pytest.raises(InvalidRequest, match="prices.csv:2"):
        load(own(tmp_path, line + "\n"))


def test_an_unknown_column_is_refused(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("provider,gpu,usd_per_gpu_hour,colour\nX,T4,1,red\n")
    with pytest.raises(InvalidRequest, match="colour"):
        load(path)


def test_whole_machines_are_paid_for():
    row = next(row for row in load() if row.instance == "p4d.24xlarge")
    (priced,) = for_gpus([row], "A100-40GB", 2)
    assert priced.gpus == 8
    assert priced.usd_per_hour(spot=False) == pytest.approx(21.9576, abs=0.001)


def test_a_device_is_known_by_its_drivers_name():
    assert by_driver_name("NVIDIA A100-SXM4-80GB", 85_000_000_000) == GPUS["A100-80GB"]
    assert by_driver_name("NVIDIA H200", 150_000_000_000) == GPUS["H200"]
    assert by_driver_name("NVIDIA L40S", 48_000_000_000) == GPUS["L40S"]
    assert by_driver_name("NVIDIA GeForce RTX 4090", 25_000_000_000) == GPUS["RTX4090"]
    assert by_driver_name("Radeon", 1) is None
