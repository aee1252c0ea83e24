"""Text leaves in whole characters, never contains a stop string, and is the same however it is cut into pieces."""

import random

import pytest

from tunesmith.engine.text import TextStream, overlap


def decode(tokens: list[int]) -> str:
    """One byte a token, as in a byte-level vocabulary at its worst."""
    return bytes(tokens).decode(errors="replace")


def pieces(text: bytes, stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(decode, stop)
    return [*(stream.push(token) for token in text), stream.finish()]


@pytest.mark.parametrize("text", ["plain", "naïve café", "数学は美しい", "👩‍🔬🧪", "a\ufffdb", ""])
def test_only_whole_characters_leave_and_all_of_them_do(text: str) -> None:
    made = pieces(text.encode())
    assert "".join(made) == text
    assert all(piece.isprintable() for piece in made if "\ufffd" not in text and "\u200d" not in text)


def test_broken_bytes_are_the_same_as_when_decoded_at_once() -> None:
    dice = random.Random(1)
    for _ in range(200):
        tokens = bytes(dice.choice(b"ab\xe2\x82\xac\xf0\x9f\xff\xc3") for _ in range(dice.randrange(12)))
        assert "".join(pieces(tokens)) == decode(list(tokens))


def test_a_decoder_that_looks_back_is_given_what_came_before() -> None:
    """One that drops the space before the first word, as SentencePiece's does."""
    words = [" a", "b", " c", " d", " e", "f", " g", " h", " i"]
    stream = TextStream(lambda tokens: "".join(words[token] for token in tokens).removeprefix(" "))
    made = [stream.push(token) for token in [*range(9), *range(9)]]
    assert made == ["a", *words[1:], *words]


def test_few_tokens_are_decoded_again() -> None:
    asked: list[int] = []

    def counting(tokens: list[int]) -> str:
        asked.append(len(tokens))
        return decode(tokens)

    stream = TextStream(counting)
    for token in b"x" * 1_000:
        stream.push(token)
    assert len(asked) < 1_300
    assert max(asked) <= 6


def test_held_tokens_are_decoded_at_the_end() -> None:
    stream = TextStream(decode)
    for token in "é!".encode():
        stream.hold(token)
    assert stream.finish() == "é!"


def test_nothing_of_a_stop_string_leaves_before_it_is_known_not_to_be_one() -> None:
    assert pieces(b"one END two", ("END",)) == ["o", "n", "e", " ", "", "", "", "", "", "", "", ""]
    assert "".join(pieces(b"one EN", ("END",))) == "one EN"
    assert "".join(pieces(b"one ENEND", ("END",))) == "one EN"
    assert "".join(pieces(b"aab", ("ab", "b"))) == "a"


def test_the_earliest_stop_string_ends_the_text() -> None:
    stream = TextStream(lambda tokens: "".join("x.y!z"[token] for token in tokens), ("!", "."))
    assert stream.push(0) == "x"
    assert stream.push(1) == ""
    assert stream.is_stopped
    assert stream.finish() == ""


@pytest.mark.parametrize(("text", "stop", "length"), [
    ("ab", "abc", 2), ("xa", "abc", 1), ("abc", "abc", 0), ("", "a", 0), ("aaa", "aab", 2),
])
def test_overlap_is_the_longest_possible_beginning(text: str, stop: str, length: int) -> None:
    assert overlap(text, stop) == length
