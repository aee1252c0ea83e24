// Supervised fine-tuning with the official Node client: node sft.mjs TRAIN.jsonl (address and key from the environment).
import assert from "node:assert/strict";
import fs from "node:fs";
import OpenAI from "openai";

const ai = new OpenAI();
const model = "gpt-4o-mini-2024-07-18";
// A read stream is sent in chunks, without a length.
const file = await ai.files.create({ file: fs.createReadStream(process.argv[2]), purpose: "fine-tune" });
assert.equal(file.status, "processed");
let job = await ai.fineTuning.jobs.create({ training_file: file.id, model, suffix: "node", hyperparameters: { n_epochs: 1 } });
while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
  await new Promise((next) => setTimeout(next, 200));
  job = await ai.fineTuning.jobs.retrieve(job.id);
}
assert.equal(job.status, "succeeded", JSON.stringify(job.error));
const messages = [];
for await (const event of ai.fineTuning.jobs.listEvents(job.id)) messages.push(event.message);
assert(messages.includes("The job has successfully completed"), messages.join("\n"));
const chat = await ai.chat.completions.create({
  model: job.fine_tuned_model,
  messages: [{ role: "user", content: "How do I reset my password?" }],
  max_tokens: 8,
});
assert.equal(chat.choices[0].message.role, "assistant");
let streamed = "";
const stream = await ai.chat.completions.create({
  model: job.fine_tuned_model, messages: [{ role: "user", content: "Hello" }], max_tokens: 8, stream: true,
});
for await (const chunk of stream) streamed += chunk.choices[0]?.delta?.content ?? "";
const response = await ai.responses.create({ model: job.fine_tuned_model, input: "Hello", max_output_tokens: 16 });
assert.equal(response.object, "response");
assert((await ai.models.delete(job.fine_tuned_model)).deleted);
console.log("done");
