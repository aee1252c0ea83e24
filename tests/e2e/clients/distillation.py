"""Distillation as in the cookbook: answers of a teacher are stored, a student is trained on them, and both are judged."""

import io
import json

import openai
from common import MODEL, client, until

ai = client()
SCHEMA = {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": SCHEMA}}
tag = {"distillation": f"cities of openai {openai.__version__}"}
for number in range(12):
    told = ai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": f"Name city number {number}."}], store=True, metadata=tag,
        response_format=FORMAT, max_tokens=60, temperature=1, seed=number,
    )
    assert json.loads(told.choices[0].message.content)["city"] is not None

stored = until(lambda: list(ai.chat.completions.list(metadata=tag, limit=5)), lambda found: len(found) == 12)
assert all(each.metadata == tag for each in stored)
rows = []
for each in stored:
    asked = [{"role": message.role, "content": message.content} for message in ai.chat.completions.messages.list(each.id)]
    assert asked[0]["content"].startswith("Name city")
    rows.append({"messages": [*asked, {"role": "assistant", "content": each.choices[0].message.content}]})
data = io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())
data.name = "distilled.jsonl"
file = ai.files.create(file=data, purpose="fine-tune")
job = ai.fine_tuning.jobs.create(training_file=file.id, model=MODEL, hyperparameters={"n_epochs": 1})

judged = ai.evals.create(
    name="cities", data_source_config={"type": "stored_completions", "metadata": tag},
    testing_criteria=[{
        "type": "string_check", "name": "names a city", "operation": "like",
        "input": "{{sample.output_text}}", "reference": "city",
    }],
)
job = until(lambda: ai.fine_tuning.jobs.retrieve(job.id), lambda job: job.status in {"succeeded", "failed"})
assert job.status == "succeeded", job.error
run = ai.evals.runs.create(
    judged.id, name="student",
    data_source={
        "type": "completions", "model": job.fine_tuned_model, "source": {"type": "stored_completions", "metadata": tag},
        "input_messages": {"type": "item_reference", "item_reference": "item.input"},
        "sampling_params": {"max_completion_tokens": 60, "temperature": 0},
    },
)
run = until(lambda: ai.evals.runs.retrieve(run.id, eval_id=judged.id), lambda run: run.status in {"completed", "failed"})
assert run.status == "completed", run.error
assert run.result_counts.total == 12
assert run.result_counts.errored == 0
assert ai.chat.completions.update(stored[0].id, metadata={"kept": "yes"}).metadata == {"kept": "yes"}
assert ai.chat.completions.delete(stored[0].id).deleted
print("done")
