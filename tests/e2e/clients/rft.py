"""Reinforcement fine-tuning as in the cookbook: a python grader is validated and run, then a job is trained on its rewards."""

import io
import json

from common import MODEL, client, until

ai = client()
SOURCE = "def grade(sample, item):\n    return 1.0 if item['answer'] in sample['output_text'] else 0.0\n"
grader = {"type": "python", "name": "right", "source": SOURCE}
ai.fine_tuning.alpha.graders.validate(grader=grader)
tried = ai.fine_tuning.alpha.graders.run(grader=grader, model_sample="four", item={"answer": "four"})
assert tried.reward == 1.0


def rows(count: int) -> io.BytesIO:
    row = {"messages": [{"role": "user", "content": "What is two and two?"}], "answer": "four"}
    data = io.BytesIO("\n".join([json.dumps(row)] * count).encode())
    data.name = "rft.jsonl"
    return data


training, validation = (ai.files.create(file=rows(count), purpose="fine-tune") for count in (12, 4))
job = ai.fine_tuning.jobs.create(
    training_file=training.id, validation_file=validation.id, model=MODEL,
    method={"type": "reinforcement", "reinforcement": {
        "grader": grader, "hyperparameters": {"n_epochs": 1, "eval_interval": 1, "eval_samples": 1},
    }},
)
job = until(lambda: ai.fine_tuning.jobs.retrieve(job.id), lambda job: job.status in {"succeeded", "failed"})
assert job.status == "succeeded", job.error
checkpoint = ai.fine_tuning.jobs.checkpoints.list(job.id).data[0].fine_tuned_model_checkpoint
assert ai.responses.create(model=checkpoint, input="What is two and two?", max_output_tokens=16).output_text
print("done")
