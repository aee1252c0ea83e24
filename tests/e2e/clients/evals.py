"""Evals: a definition with two criteria, runs over given rows and over stored responses, items and their scores."""

from common import MODEL, client, until

ai = client()
tickets = [("My card was charged twice.", "billing"), ("The page is blank.", "bug"), ("Where is my parcel?", "shipping")]
judged = ai.evals.create(
    name="tickets",
    data_source_config={
        "type": "custom", "include_sample_schema": True,
        "item_schema": {
            "type": "object", "properties": {"ticket": {"type": "string"}, "label": {"type": "string"}},
            "required": ["ticket", "label"],
        },
    },
    testing_criteria=[
        {"type": "string_check", "name": "right", "input": "{{ sample.output_text }}", "reference": "{{ item.label }}",
         "operation": "ilike"},
        {"type": "text_similarity", "name": "near", "input": "{{ sample.output_text }}", "reference": "{{ item.label }}",
         "evaluation_metric": "fuzzy_match", "pass_threshold": 0.0},
    ],
)
run = ai.evals.runs.create(
    judged.id, name="base",
    data_source={
        "type": "completions", "model": MODEL,
        "source": {"type": "file_content", "content": [{"item": {"ticket": text, "label": label}} for text, label in tickets]},
        "input_messages": {"type": "template", "template": [
            {"role": "developer", "content": "Name the kind of the ticket."}, {"role": "user", "content": "{{ item.ticket }}"},
        ]},
        "sampling_params": {"temperature": 0, "max_completion_tokens": 6},
    },
)
assert run.status in {"queued", "in_progress"}, run.status
run = until(lambda: ai.evals.runs.retrieve(run.id, eval_id=judged.id), lambda run: run.status in {"completed", "failed"})
assert run.status == "completed", run.error
assert run.result_counts.total == 3
assert {each.testing_criteria for each in run.per_testing_criteria_results}
items = list(ai.evals.runs.output_items.list(run.id, eval_id=judged.id, limit=2))
assert len(items) == 3
assert all(item.status in {"pass", "fail"} for item in items)
assert all(item.sample.output[0].content is not None for item in items)
assert ai.evals.runs.output_items.retrieve(items[0].id, eval_id=judged.id, run_id=run.id).id == items[0].id

for number in range(3):
    ai.responses.create(model=MODEL, input=f"Count to {number}.", max_output_tokens=16, metadata={"set": judged.id})
logs = ai.evals.create(
    name="logs", data_source_config={"type": "logs", "metadata": {"set": judged.id}},
    testing_criteria=[{
        "type": "score_model", "name": "judge", "model": MODEL, "range": [0, 4], "pass_threshold": 0,
        "input": [{"role": "user", "content": "Grade from 0 to 4: {{ sample.output_text }}"}],
        "sampling_params": {"temperature": 0, "max_completions_tokens": 60},
    }],
)
graded = ai.evals.runs.create(
    logs.id, name="stored", data_source={"type": "responses", "source": {"type": "responses", "metadata": {"set": judged.id}}}
)
graded = until(lambda: ai.evals.runs.retrieve(graded.id, eval_id=logs.id), lambda run: run.status in {"completed", "failed"})
assert graded.status == "completed", graded.error
scores = [item.results[0] for item in ai.evals.runs.output_items.list(graded.id, eval_id=logs.id)]
assert len(scores) == 3
assert ai.evals.update(judged.id, name="tickets, first").name == "tickets, first"
assert ai.evals.runs.delete(run.id, eval_id=judged.id).deleted
assert ai.evals.delete(judged.id).deleted
print("done")
