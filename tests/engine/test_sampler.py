"""Draws follow the distribution, stay in the nucleus, and do not depend on the rest of the batch."""

import random

import pytest
import torch

from engine.fakes import make_sequence
from tunesmith.engine.sampler import NUCLEUS, sample
from tunesmith.engine.sequence import Sampling, Sequence, TokenLogprob
from tunesmith.errors import EngineFailed

GREEDY = Sampling(1, temperature=0)


class Fixed(random.Random):
    """Draws one number, again and again."""

    def __init__(self, number: float):
        super().__init__(0)
        self.number = number

    def random(self) -> float:
        return self.number


def rows(samplings: list[Sampling], uniforms: list[float]) -> list[Sequence]:
    made = []
    for number, (sampling, uniform) in enumerate(zip(samplings, uniforms, strict=True)):
        sequence = make_sequence(number, [1])
        sequence.sampling, sequence.random = sampling, Fixed(uniform)
        made.append(sequence)
    return made


def tokens(logits: torch.Tensor, samplings: list[Sampling], uniforms: list[float]) -> list[int]:
    answers = sample(logits, rows(samplings, uniforms))
    return [answer.token for answer in answers if isinstance(answer, TokenLogprob)]


def test_greedy_takes_the_likeliest() -> None:
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(1))
    assert tokens(logits, [GREEDY] * 5, [0.9] * 5) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_row_draws_the_same_alone_and_in_company(top_p: float) -> None:
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(2))
    samplings = [Sampling(1, temperature=t, top_p=top_p) for t in (0.5, 1, 2, 1, 0.7, 1.5)]
    dice = random.Random(3)
    uniforms = [dice.random() for _ in range(6)]
    together = tokens(logits, samplings, uniforms)
    alone = [tokens(logits[row : row + 1], [samplings[row]], [uniforms[row]])[0] for row in range(6)]
    assert together == alone


def test_draws_follow_the_distribution_at_their_temperature() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    count = 4000
    for temperature in (0.5, 1.0, 2.0):
        # Evenly spread numbers instead of random ones: the shares are then exact to one draw.
        uniforms = [(n + 0.5) / count for n in range(count)]
        drawn = tokens(logits.expand(count, 4), [Sampling(1, temperature=temperature)] * count, uniforms)
        shares = torch.bincount(torch.tensor(drawn), minlength=4) / count
        assert torch.allclose(shares, torch.softmax(logits / temperature, -1), atol=2 / count)


def test_top_p_draws_from_the_fewest_tokens_that_reach_it() -> None:
    logits = torch.log(torch.tensor([0.1, 0.5, 0.05, 0.3, 0.05]))
    def drawn(top_p: float) -> set[int]:
        uniforms = [n / 100 for n in range(100)]
        return set(tokens(logits.expand(100, 5), [Sampling(1, top_p=top_p)] * 100, uniforms))
    assert drawn(0.4) == {1}
    assert drawn(0.6) == {1, 3}
    assert drawn(0.85) == {0, 1, 3}
    assert drawn(0.0) == {1}


def test_a_nucleus_wider_than_the_first_look_is_exact() -> None:
    size = 4 * NUCLEUS
    uniforms = [(n + 0.5) / size for n in range(size)]
    drawn = tokens(torch.zeros(size, size), [Sampling(1, top_p=0.75)] * size, uniforms)
    assert len(set(drawn)) == round(0.75 * size)


def test_top_k_and_min_p_leave_the_likeliest_and_top_p_looks_at_what_they_leave() -> None:
    logits = torch.log(torch.tensor([0.1, 0.5, 0.05, 0.3, 0.05]))

    def drawn(**wanted: float) -> set[int]:
        uniforms = [n / 100 for n in range(100)]
        return set(tokens(logits.expand(100, 5), [Sampling(1, **wanted)] * 100, uniforms))  # type: ignore[arg-type]

    assert drawn(top_k=1) == {1}
    assert drawn(top_k=3) == {0, 1, 3}
    assert drawn(top_k=99) == {0, 1, 2, 3, 4}
    assert drawn(min_p=0.5) == {1, 3}
    assert drawn(min_p=1.0) == {1}
    assert drawn(top_k=2, top_p=0.6) == {1}, "0.5 of the 0.8 that top-k leaves is more than 0.6"
    assert drawn(top_k=2, top_p=0.7) == {1, 3}
    assert drawn(min_p=0.15, top_k=2) == {1, 3}


@pytest.mark.parametrize("wanted", [{"top_k": 3 * NUCLEUS}, {"min_p": 0.5}, {"top_k": 3 * NUCLEUS, "min_p": 0.1}])
def test_more_than_the_first_look_holds_is_exact(wanted: dict[str, float]) -> None:
    size = 4 * NUCLEUS
    logits = torch.zeros(size, size)
    logits[:, 3 * NUCLEUS :] = -9.0
    uniforms = [(n + 0.5) / size for n in range(size)]
    drawn = tokens(logits, [Sampling(1, **wanted)] * size, uniforms)  # type: ignore[arg-type]
    assert set(drawn) == set(range(3 * NUCLEUS))


def test_a_row_draws_the_same_beside_a_row_that_must_look_further() -> None:
    logits = torch.randn(2, 2000, generator=torch.Generator().manual_seed(5))
    logits[0] *= 9
    samplings = [Sampling(1, top_p=0.9), Sampling(1, top_p=0.999)]
    for uniform in (0.1, 0.5, 0.9):
        together = tokens(logits, samplings, [uniform, uniform])
        assert together[0] == tokens(logits[:1], samplings[:1], [uniform])[0]


def test_a_temperature_too_small_for_the_arithmetic_is_greedy() -> None:
    logits = torch.tensor([[1.0, 5.0, 2.0]])
    assert tokens(logits, [Sampling(1, temperature=1e-300)], [0.999]) == [1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_gives_no_token_and_the_others_do(bad: float) -> None:
    logits = torch.zeros(3, 8)
    logits[1, 2] = bad
    logits[0, 5] = logits[2, 6] = 9.0
    answers = sample(logits, rows([GREEDY, Sampling(1), GREEDY], [0.5] * 3))
    assert isinstance(answers[1], EngineFailed)
    assert [answer.token for answer in answers if isinstance(answer, TokenLogprob)] == [5, 6]


def test_masked_logits_are_never_drawn() -> None:
    logits = torch.full((50, 8), float("-inf"))
    logits[:, 3] = 0.0
    assert set(tokens(logits, [Sampling(1)] * 50, [n / 50 for n in range(50)])) == {3}


def test_log_probabilities_are_those_of_the_model_before_temperature() -> None:
    logits = torch.randn(2, 30, generator=torch.Generator().manual_seed(4))
    wanted = [Sampling(1, temperature=0.3, num_logprobs=3), Sampling(1, temperature=0.3)]
    first, second = sample(logits, rows(wanted, [0.5, 0.5]))
    assert isinstance(first, TokenLogprob)
    assert isinstance(second, TokenLogprob)
    expected = torch.log_softmax(logits[0], -1)
    assert first.logprob == pytest.approx(float(expected[first.token]), abs=1e-6)
    assert [token for token, _ in first.top] == expected.topk(3).indices.tolist()
    assert second.logprob is None
