"""Turns a growing list of tokens into text: whole characters only, and nothing of a stop string. Knows no tokenizer's insides.

A token of a byte-level vocabulary may be a part of a character; its text is held back until the character is whole. Text that
may be the beginning of a stop string is held back too, until it is known not to be.
"""

from collections.abc import Callable

Decode = Callable[[list[int]], str]
BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no whole character."""
MAX_CONTEXT = 4
"""Tokens that are decoded again with the next one: more make each decode longer, fewer need their own text made more often.
Around four, a token costs least with a real tokenizer: some 60 % of what two decodes for each cost."""


class TextStream:
    """Text of one completion. `push` each token, then `finish`; the pieces that they return are the whole text."""

    def __init__(self, decode: Decode, stop: tuple[str, ...] = ()):
        self._decode = decode
        self._stop = stop
        self._tokens: list[int] = []
        self._context = 0
        """Start of the last tokens that were turned into text: decoded again with the next, for some decoders look back."""
        self._before = ""
        """Their text."""
        self._done = 0
        """Tokens that were turned into text."""
        self._held = ""
        self.is_stopped = False

    def hold(self, token: int) -> None:
        """Takes a token whose text is not wanted before the end: the whole is then decoded at once."""
        self._tokens.append(token)

    def push(self, token: int) -> str:
        """The text that is now certain; often empty."""
        self._tokens.append(token)
        return self._release(self._new_text(is_last=False))

    def finish(self) -> str:
        """What was held back; broken bytes at the end become U+FFFD."""
        text = self._release(self._new_text(is_last=True))
        held, self._held = self._held, ""
        return text if self.is_stopped else text + held

    def _new_text(self, *, is_last: bool) -> str:
        if self._done == len(self._tokens):
            return ""
        after = self._decode(self._tokens[self._context :])
        if after.endswith(BROKEN) and not is_last:
            return ""
        text = after[len(self._before) :]
        self._before = after
        if len(self._tokens) - self._context > MAX_CONTEXT:
            self._context = self._done
            self._before = self._decode(self._tokens[self._context :])
        self._done = len(self._tokens)
        return text

    def _release(self, text: str) -> str:
        """Of held and new text, what no stop string can begin in; ends at the first stop string."""
        if self.is_stopped:
            return ""
        if not self._stop:
            return text
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.is_stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
