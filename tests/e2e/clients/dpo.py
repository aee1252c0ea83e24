"""Preference fine-tuning as in the cookbook's guide: answers, a judge, preferences, a job, and the tuned model."""

import io
import json

from common import MODEL, client, until

ai = client()
row = {
    "input": {"messages": [{"role": "user", "content": "Is the shop open?"}], "tools": [], "parallel_tool_calls": True},
    "preferred_output": [{"role": "assistant", "content": "Yes, until six."}],
    "non_preferred_output": [{"role": "assistant", "content": "Maybe."}],
}
data = io.BytesIO("\n".join([json.dumps(row)] * 12).encode())
data.name = "preferences.jsonl"
file = ai.files.create(file=data, purpose="fine-tune")
job = ai.fine_tuning.jobs.create(
    training_file=file.id, model=MODEL,
    method={"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2, "beta": 0.1, "batch_size": 8}}},
)
job = until(lambda: ai.fine_tuning.jobs.retrieve(job.id), lambda job: job.status in {"succeeded", "failed"})
assert job.status == "succeeded", job.error
assert ai.responses.create(model=job.fine_tuned_model, input="Is the shop open?", max_output_tokens=16).output_text
print("done")
