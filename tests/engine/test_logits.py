"""Penalties, biases and masks change the rows that ask for them, by the published formulas, and no others."""

import pytest
import torch

from engine.fakes import make_sequence
from tunesmith.engine.logits import bars, shape
from tunesmith.engine.sampler import sample
from tunesmith.engine.sequence import VIRTUAL, Sampling, Sequence, TokenLogprob
from tunesmith.errors import EngineFailed, InvalidRequest


class Only:
    """Allows a few tokens of a vocabulary of 40."""

    def __init__(self, *tokens: int):
        self.tokens = tokens

    def allowed(self) -> bytes:
        return sum(1 << token for token in self.tokens).to_bytes(8, "little")

    def accept(self, token: int) -> bool:
        return False


class Broken(Only):
    def allowed(self) -> bytes:
        raise InvalidRequest("The schema went wrong.")


def sequence(prompt: list[int], completion: list[int], **wanted: object) -> Sequence:
    made = make_sequence(1, prompt)
    made.sampling = Sampling(9, temperature=0, **wanted)  # type: ignore[arg-type]
    made.tokens += completion
    return made


def logits(rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, 40, generator=torch.Generator().manual_seed(3))


def test_rows_that_ask_for_nothing_are_the_models_own() -> None:
    given = logits(2)
    assert shape(given, [sequence([1], [2]), sequence([1], [2])])[0] is given
    before = given.clone()
    shaped, _ = shape(given, [sequence([1], [2]), sequence([1], [2], presence_penalty=1.0)])
    assert torch.equal(given, before)
    assert torch.equal(shaped[0], given[0])


def test_presence_and_frequency_count_the_completion_only() -> None:
    given = logits()
    shaped, _ = shape(given, [sequence([5, 5, 6], [7, 8, 7, 7], presence_penalty=0.5, frequency_penalty=0.25)])
    expected = given.clone()
    expected[0, 7] -= 0.5 + 3 * 0.25
    expected[0, 8] -= 0.5 + 0.25
    assert torch.allclose(shaped, expected)


def test_repetition_counts_prompt_and_completion_but_no_soft_prompt() -> None:
    given = logits()
    one = sequence([VIRTUAL, VIRTUAL, 5, 6], [7], repetition_penalty=1.5)
    one.num_virtual = 2
    expected = given.clone()
    for token in (5, 6, 7):
        value = expected[0, token]
        expected[0, token] = value / 1.5 if value > 0 else value * 1.5
    assert torch.allclose(shape(given, [one])[0], expected)


def test_counts_that_grow_with_the_completion_are_those_of_a_fresh_count() -> None:
    wanted = {"presence_penalty": 0.3, "frequency_penalty": -0.2, "repetition_penalty": 1.1}
    one = sequence([1, 2], [], **wanted)
    generator = torch.Generator().manual_seed(4)
    for _ in range(30):
        given = torch.randn(1, 40, generator=generator)
        grown, _ = shape(given, [one])
        fresh, _ = shape(given, [sequence([1, 2], one.tokens[2:], **wanted)])
        assert torch.equal(grown, fresh)
        one.tokens.append(int(torch.randint(40, (1,), generator=generator)))


def test_biases_are_added_and_end_tokens_wait_for_their_time() -> None:
    given = logits(2)
    biased = sequence([1], [2], logit_bias=((3, 2.5), (4, -100.0), (40, 1.0)))
    young = sequence([1], [2], min_tokens=2)
    shaped, _ = shape(given, [biased, young])
    assert torch.allclose(shaped[0, 3:5], given[0, 3:5] + torch.tensor([2.5, -100.0]))
    assert shaped[1, 9] == float("-inf"), "9 is these sequences' end token"
    young.tokens.append(2)
    assert torch.equal(shape(given, [biased, young])[0][1], given[1])


def test_a_constraint_masks_its_own_row_and_one_that_fails_fails_alone() -> None:
    rows = [sequence([1], []) for _ in range(4)]
    rows[1].constraint, rows[2].constraint = Only(3, 39), Broken()
    rows[3].constraint = Only()
    given = logits(4)
    free, masked, failed, nothing = sample(given, rows)
    assert isinstance(free, TokenLogprob)
    assert free.token == int(given[0].argmax())
    assert isinstance(masked, TokenLogprob)
    assert masked.token == max((3, 39), key=lambda token: float(given[1, token]))
    assert isinstance(failed, InvalidRequest)
    assert isinstance(nothing, EngineFailed)


def test_log_probabilities_stay_those_of_the_model() -> None:
    one = sequence([1], [2], num_logprobs=2, logit_bias=((3, 100.0),))
    given = logits()
    answer = sample(given, [one])[0]
    assert isinstance(answer, TokenLogprob)
    own = torch.log_softmax(given[0], -1)
    assert answer.token == 3
    assert answer.logprob == pytest.approx(float(own[3]), abs=1e-6)
    assert [token for token, _ in answer.top] == own.topk(2).indices.tolist()


@pytest.mark.parametrize("num_tokens", [10, 32, 70])
def test_bits_are_spread_lowest_first_and_what_lies_beyond_them_may_not_come(num_tokens: int) -> None:
    bits = (1 << 0 | 1 << 9 | 1 << 31).to_bytes(4, "little")
    added = bars(torch.frombuffer(bytearray(bits * 2), dtype=torch.uint8).view(2, 4), num_tokens)
    expected = {token for token in (0, 9, 31) if token < num_tokens}
    assert [set((row == 0).nonzero()[:, 0].tolist()) for row in added] == [expected, expected]
    assert set(added.unique().tolist()) == {0.0, float("-inf")}
