"""A notebook's cells: train, evaluate and serve from Python, without a shell."""

import openai

import tunesmith
from tunesmith.paths import SUPPORT_DESK


def test_train_evaluate_and_serve_from_python(tmp_path):
    rows = (SUPPORT_DESK / "train.jsonl").read_text().splitlines()[:16]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")

    result = tunesmith.train(
        {"base": "tunesmith/tiny", "method": {"epochs": 1}, "data": {"train": str(tmp_path / "rows.jsonl")}},
        folder=tmp_path / "run",
    )
    assert result["steps"] == 2
    assert result["adapter"]["base"] == "tunesmith/tiny"

    measured = tunesmith.evaluate(tmp_path / "run", file=tmp_path / "rows.jsonl")
    assert set(measured) >= {"exact_match", "token_f1", "total"}
    assert measured["total"] == 16
    skills = tunesmith.evaluate("tunesmith/tiny", skills=["copy"], items=8)
    assert skills["skills"]["copy"]["total"] == 8

    with (
        tunesmith.serve(data_dir=tmp_path / "data") as server,
        openai.OpenAI(base_url=server.base_url, api_key=server.api_key) as client,
    ):
        assert "tunesmith/tiny" in [model.id for model in client.models.list()]
