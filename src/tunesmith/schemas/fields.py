"""What becomes of each field of a question: one table per endpoint, which requests are checked by and docs are made from.

Knows no HTTP and no engine's values: the engine refuses what is wrong about a value.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from tunesmith.errors import InvalidRequest

How = Literal["engine", "desk", "label", "partly", "refused"]

MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512
"""Of `metadata`: pairs, characters of a key, characters of a value."""

TEXTS = frozenset({"user", "safety_identifier", "prompt_cache_key"})
"""Labels that are shown again, and so must be what they are said to be."""


class Rule(NamedTuple):
    """`engine` computes it, `desk` acts on it, a `label` is taken and changes no answer; of the others `why` says why not."""

    how: How
    why: str = ""
    values: tuple[Any, ...] = ()
    """Of `partly`: what may be asked. Of `refused`: what asks for nothing."""
    code: str = "unsupported_parameter"

    @property
    def is_honoured(self) -> bool:
        return self.how in {"engine", "desk", "label"}


Table = Mapping[str, Rule]

ENGINE, DESK, LABEL = Rule("engine"), Rule("desk"), Rule("label")


def missing(why: str, *values: Any) -> Rule:
    """A field whose part is not there."""
    return Rule("refused", why, values, "not_available")


def refused(why: str, *values: Any) -> Rule:
    return Rule("refused", why, values)


def partly(why: str, *values: Any) -> Rule:
    return Rule("partly", why, values)


def check(table: Table, body: Mapping[str, Any], others: frozenset[str] | None = frozenset()) -> None:
    """Raises InvalidRequest with the first field that cannot be honoured; null is the same as absent.

    `others` are known beside the table's; None lets every other field through, for whoever comes next to decide.
    """
    for name, value in body.items():
        rule = table.get(name)
        if rule is None and others is not None and name not in others:
            message = f"Unrecognized request argument supplied: {name[:80]}."
            raise InvalidRequest(message, hint="Leave it out.", param=name[:80], code="unknown_parameter")
        if rule is not None and rule.how == "label" and name in TEXTS and not isinstance(value, str | None):
            raise InvalidRequest(f"{name} is not text.", param=name, code="invalid_value")
        if rule is None or value is None or rule.is_honoured or value in rule.values:
            continue
        raise InvalidRequest(f"{name} is not supported here: {rule.why}.", hint="Leave it out.", param=name, code=rule.code)


def check_metadata(value: Any) -> dict[str, str]:
    """The pairs of a `metadata` field; none for null. Raises InvalidRequest."""
    pairs = {} if value is None else value
    if not isinstance(pairs, dict) or len(pairs) > MAX_PAIRS or not all(map(_is_pair, pairs.items())):
        message = f"metadata is not an object of at most {MAX_PAIRS} pairs of text."
        hint = f"Keys have at most {MAX_KEY} characters, values {MAX_VALUE}."
        raise InvalidRequest(message, hint=hint, param="metadata", code="invalid_value")
    return pairs


def _is_pair(pair: tuple[Any, Any]) -> bool:
    key, value = pair
    if not isinstance(value, str) or len(key) > MAX_KEY or len(value) > MAX_VALUE:
        return False
    return all("\x00" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text) for text in pair)


def flag(body: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """A field that is true or false. Raises InvalidRequest."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{name} is neither true nor false.", param=name, code="invalid_value")
    return default if value is None else value
