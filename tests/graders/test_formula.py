"""The formula of a multi grader: arithmetic over scores, and nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import InvalidRequest
from tunesmith.graders.formula import NotComputable, compute, parse

SCORES = {"a": 0.25, "b": 0.5, "long_name_2": 4.0}


def value(text):
    return compute(parse(text, set(SCORES)), SCORES)


@pytest.mark.parametrize(("text", "result"), [
    ("a + b * long_name_2", 2.25),
    ("(a + b) * long_name_2", 3.0),
    ("1 - 2 - 3", -4.0),
    ("8 / 4 / 2", 1.0),
    ("2 ^ 3 ^ 2", 512.0),
    ("-2 ^ 2", -4.0),
    ("2 ^ -1", 0.5),
    ("--a", 0.25),
    ("min(a, b, 0.1) + max(a, b)", 0.6),
    ("max(a)", 0.25),
    ("abs(-a) + floor(1.7) + ceil(0.2)", 2.25),
    ("exp(0) + sqrt(long_name_2) + log(1)", 3.0),
    ("1e-1 + .5 + 2.", 2.6),
    (" a ", 0.25),
])
def test_formulas_are_computed_as_arithmetic_is_written(text, result):
    assert value(text) == pytest.approx(result)


@pytest.mark.parametrize("text", [
    "", "a +", "a b", "(a", "a)", "c", "f(a)", "abs(a, b)", "min()", "a ** b", "a // b", "a % b", "a.b", "a[0]", "'x'", "a == b",
    "__import__('os')", "lambda: 1", "min", "1 +* 2", "(" * 60 + "a" + ")" * 60, "2 ^ " * 60 + "2",
])
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(InvalidRequest) as caught:
        parse(text, set(SCORES))
    assert caught.value.code == "formula_parse_error"


@pytest.mark.parametrize(
    "text", ["1 / 0", "sqrt(-1)", "log(0)", "(-8) ^ 0.5", "10 ^ 400", "exp(1000)", "1e308 * 10", "floor(1e308 * 10)"]
)
def test_a_formula_without_a_finite_value_says_so(text):
    with pytest.raises(NotComputable):
        value(text)


def test_a_long_sum_is_no_deep_tree():
    assert value("+".join(["a"] * 400)) == 100


@given(st.lists(st.tuples(st.sampled_from("+-*"), st.floats(0, 100)), min_size=1, max_size=20))
def test_a_chain_has_the_value_that_python_gives_it(parts):
    text = "1" + "".join(f" {sign} {number!r}" for sign, number in parts)
    assert value(text) == pytest.approx(eval(text), rel=1e-9, abs=1e-9) or math.isinf(eval(text))  # noqa: S307
