"""Turns a chat, whole or chunk by chunk, into a response and the events that tell of it, in OpenAI's order and numbers.

Pure. A whole chat is one large chunk: the response is the same either way.
"""

import time
from typing import Any

from tunesmith.schemas.response_items import item_id
from tunesmith.schemas.responses import usage_of

Json = dict[str, Any]

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a chat ended -> why a response is not complete."""


class Turned:
    """One response while it is made. Each call returns the events that it caused; `response` is what is known so far."""

    def __init__(self, response: Json):
        self.response = response
        self._number = 0
        self._finish_reason = "stop"
        self._call: int | None = None
        """Index, in the chat, of the call that is open."""
        self._held: list[Json] = []
        """Log-probabilities of tokens whose text has not come yet."""

    def created(self) -> list[Json]:
        """It is there; in the background it waits."""
        is_waiting = self.response["status"] == "queued"
        return [self._about("response.created"), *([self._about("response.queued")] if is_waiting else [])]

    def started(self) -> list[Json]:
        self.response["status"] = "in_progress"
        return [self._about("response.in_progress")]

    def feed(self, chunk: Json) -> list[Json]:
        """A chunk of a chat, or a whole completion."""
        events: list[Json] = []
        if chunk.get("usage"):
            self.response["usage"] = usage_of(chunk["usage"])
        for choice in chunk.get("choices") or []:
            said = choice.get("delta") or choice.get("message") or {}
            logprobs = (choice.get("logprobs") or {}).get("content") or []
            self._held += logprobs
            if said.get("content"):
                events += self._text(said["content"])
            for number, call in enumerate(said.get("tool_calls") or []):
                events += self._called(call.get("index", number), call)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        return events

    def end(self) -> list[Json]:
        """The chat has come to its end."""
        reason = INCOMPLETE.get(self._finish_reason)
        events: list[Json] = [] if self.response["output"] else self._text("")
        events += self._close("completed" if reason is None else "incomplete")
        self.response["status"] = "completed" if reason is None else "incomplete"
        if reason is None:
            self.response["completed_at"] = int(time.time())
        else:
            self.response["incomplete_details"] = {"reason": reason}
        return [*events, self._about(f"response.{self.response['status']}")]

    def fail(self, code: str, message: str) -> list[Json]:
        """It will not come to its end."""
        events = self._close("incomplete")
        self.response["status"] = "failed"
        self.response["error"] = {"code": code, "message": message}
        return [*events, self._about("response.failed")]

    def cancel(self) -> None:
        """It was ended from outside; no event tells that."""
        self._close("incomplete")
        self.response["status"] = "cancelled"

    # -- items ----------------------------------------------------------------------------------------------------------

    @property
    def _open(self) -> Json | None:
        output = self.response["output"]
        return output[-1] if output and output[-1]["status"] == "in_progress" else None

    def _text(self, delta: str) -> list[Json]:
        events: list[Json] = []
        logprobs, self._held = self._held, []
        if self._open is None or self._open["type"] != "message":
            events += self._close("completed")
            item: Json = {"id": item_id("message"), "type": "message", "status": "in_progress", "role": "assistant"}
            item["content"] = []
            events.append(self._add(item))
            item["content"].append({"type": "output_text", "text": "", "annotations": [], "logprobs": []})
            events.append(self._event("response.content_part.added", item, content_index=0, part=dict(item["content"][0])))
        item = self.response["output"][-1]
        part = item["content"][0]
        part["text"] += delta
        part["logprobs"] = part["logprobs"] + logprobs
        if delta:
            events.append(self._event("response.output_text.delta", item, content_index=0, delta=delta, logprobs=logprobs))
        return events

    def _called(self, index: int, call: Json) -> list[Json]:
        events: list[Json] = []
        function = call.get("function") or {}
        if self._open is None or self._open["type"] != "function_call" or self._call != index:
            events += self._close("completed")
            item = {"id": item_id("function_call"), "type": "function_call", "status": "in_progress", "arguments": "",
                    "call_id": call.get("id") or "", "name": function.get("name") or ""}  # fmt: skip
            self._call = index
            events.append(self._add(item))
        item = self.response["output"][-1]
        delta = function.get("arguments") or ""
        item["arguments"] += delta
        if delta:
            events.append(self._event("response.function_call_arguments.delta", item, delta=delta))
        return events

    def _add(self, item: Json) -> Json:
        self.response["output"].append(item)
        return self._numbered("response.output_item.added", output_index=self._index, item=_copy(item))

    def _close(self, status: str) -> list[Json]:
        """Ends the item that is open, if one is."""
        item = self._open
        if item is None:
            return []
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            text, logprobs = part["text"], part["logprobs"]
            events = [
                self._event("response.output_text.done", item, content_index=0, text=text, logprobs=logprobs),
                self._event("response.content_part.done", item, content_index=0, part=dict(part)),
            ]
        else:
            name, arguments = item["name"], item["arguments"]
            events = [self._event("response.function_call_arguments.done", item, name=name, arguments=arguments)]
        return [*events, self._numbered("response.output_item.done", output_index=self._index, item=_copy(item))]

    # -- events ---------------------------------------------------------------------------------------------------------

    @property
    def _index(self) -> int:
        return len(self.response["output"]) - 1

    def _event(self, kind: str, item: Json, **fields: Any) -> Json:
        return self._numbered(kind, item_id=item["id"], output_index=self._index, **fields)

    def _about(self, kind: str) -> Json:
        output = [_copy(item) for item in self.response["output"]]
        return self._numbered(kind, response=self.response | {"output": output})

    def _numbered(self, kind: str, **fields: Any) -> Json:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}


def _copy(item: Json) -> Json:
    """The item as it is now: it goes on to change."""
    return item | ({"content": [dict(part) for part in item["content"]]} if "content" in item else {})
