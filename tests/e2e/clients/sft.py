"""Supervised fine-tuning as in the cookbook's "How to fine-tune chat models": python sft.py TRAIN.jsonl VALID.jsonl"""

import sys

from common import MODEL, client, until

ai = client()
with open(sys.argv[1], "rb") as train, open(sys.argv[2], "rb") as valid:
    training = ai.files.create(file=train, purpose="fine-tune")
    validation = ai.files.create(file=valid, purpose="fine-tune")
assert ai.files.wait_for_processing(training.id).status == "processed"
job = ai.fine_tuning.jobs.create(
    training_file=training.id, validation_file=validation.id, model=MODEL, suffix="support", metadata={"team": "desk"}, seed=7,
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": "auto"}}},
)
assert job.id.startswith("ftjob-")
assert job.status == "validating_files", job.status
assert job.id in [each.id for each in ai.fine_tuning.jobs.list(metadata={"team": "desk"})]
assert [each.id for each in ai.fine_tuning.jobs.list(metadata={"team": "nobody"})] == []
job = until(lambda: ai.fine_tuning.jobs.retrieve(job.id), lambda job: job.status in {"succeeded", "failed", "cancelled"})
assert job.status == "succeeded", job.error
assert job.trained_tokens > 0
assert isinstance(job.hyperparameters.n_epochs, int)
assert isinstance(job.hyperparameters.batch_size, int), "auto is replaced by what was chosen"

events = ai.fine_tuning.jobs.list_events(job.id, limit=100).data
events.reverse()
said = [event.message for event in events]
for line in (f"Created fine-tuning job: {job.id}", "Fine-tuning job started", "The job has successfully completed"):
    assert line in said, (line, said)
assert any(event.type == "metrics" and "train_loss" in event.data for event in events)
assert len({event.id for event in ai.fine_tuning.jobs.list_events(job.id, limit=3)}) == len(events), "paging finds each once"

model = job.fine_tuned_model
assert model.startswith("ft:"), model
assert ":support:" in model
question = [{"role": "user", "content": "How do I reset my password?"}]
chat = ai.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=20)
assert chat.model == model
assert chat.choices[0].message.content
answer = ai.responses.create(model=model, input="How do I reset my password?", temperature=0, max_output_tokens=20)
assert answer.output_text
with_text = ai.completions.create(model=model, prompt="How do I", max_tokens=4, temperature=0)
assert with_text.usage.completion_tokens > 0

checkpoints = ai.fine_tuning.jobs.checkpoints.list(job.id).data
assert checkpoints
name = checkpoints[0].fine_tuned_model_checkpoint
assert name.startswith(model + ":ckpt-step-"), name
assert ai.chat.completions.create(model=name, messages=question, max_tokens=4).choices[0].message is not None
results = ai.files.content(job.result_files[0]).text
assert results

assert model in [each.id for each in ai.models.list()]
assert ai.models.retrieve(model).id == model
assert ai.models.delete(model).deleted
print("done")
