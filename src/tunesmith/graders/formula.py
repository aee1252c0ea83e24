"""The formula of a `multi` grader: numbers, names of graders, + - * / ^, parentheses and eight functions. Nothing is executed:
the text is read by the grammar below into a tree, and the tree is computed.

    sum     = product (("+" | "-") product)*          power  = atom ("^" sign)?
    product = sign (("*" | "/") sign)*                atom   = number | name | name "(" sum ("," sum)* ")" | "(" sum ")"
    sign    = "-"* power
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tunesmith.errors import InvalidRequest, TunesmithError

TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)|([-+*/^(),]))", re.ASCII)
MAX_DEPTH = 50
OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "^": math.pow,
}
FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min, "max": max, "abs": abs, "floor": math.floor, "ceil": math.ceil, "exp": math.exp, "sqrt": math.sqrt,
    "log": math.log,
}
SEVERAL = {"min", "max"}
"""Functions of one or more numbers; the others take exactly one."""


class NotComputable(TunesmithError):
    """The formula has no finite value for these scores: a division by zero, the root of a negative number."""

    code = "formula_not_computable"
    status = 400


class Number(NamedTuple):
    value: float

    def compute(self, scores: Mapping[str, float]) -> float:
        return self.value


class Score(NamedTuple):
    name: str

    def compute(self, scores: Mapping[str, float]) -> float:
        return scores[self.name]


class Call(NamedTuple):
    function: Callable[..., float]
    arguments: "list[Node]"

    def compute(self, scores: Mapping[str, float]) -> float:
        return float(self.function(*(argument.compute(scores) for argument in self.arguments)))


class Chain(NamedTuple):
    """`first`, then one operation after the other: a long sum is no deep tree."""

    first: "Node"
    rest: "list[tuple[Callable[[float, float], float], Node]]"

    def compute(self, scores: Mapping[str, float]) -> float:
        value = self.first.compute(scores)
        for operation, node in self.rest:
            value = operation(value, node.compute(scores))
        return value


Node = Number | Score | Call | Chain


def parse(text: str, names: set[str]) -> Node:
    """The tree of a formula over these names. Raises InvalidRequest with where and why it cannot be read."""
    return _Parser(text, names).whole()


def compute(formula: Node, scores: Mapping[str, float]) -> float:
    """Raises NotComputable."""
    try:
        value = formula.compute(scores)
    except (ArithmeticError, ValueError) as error:
        raise NotComputable(f"The formula cannot be computed: {error}.") from error
    if not math.isfinite(value):
        raise NotComputable("The formula has no finite value.")
    return value


class _Parser:
    """Reads from left to right, one method per line of the grammar."""

    def __init__(self, text: str, names: set[str]):
        self._text, self._names = text, names
        self._at, self._depth = 0, 0
        self._kind, self._token = "", ""
        self._next()

    def whole(self) -> Node:
        node = self._sum()
        if self._kind != "end":
            raise self._bad(f"{self._token!r} was not expected")
        return node

    def _sum(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._bad(f"it is nested deeper than {MAX_DEPTH}")
        node = self._chain(self._product, ("+", "-"))
        self._depth -= 1
        return node

    def _product(self) -> Node:
        return self._chain(self._sign, ("*", "/"))

    def _chain(self, part: Callable[[], Node], signs: tuple[str, str]) -> Node:
        first, rest = part(), []
        while self._token in signs:
            operation = OPERATIONS[self._take()]
            rest.append((operation, part()))
        return Chain(first, rest) if rest else first

    def _sign(self) -> Node:
        negative = False
        while self._token == "-":
            self._take()
            negative = not negative
        node = self._power()
        return Call(operator.neg, [node]) if negative else node

    def _power(self) -> Node:
        base = self._atom()
        if self._token != "^":
            return base
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._bad(f"it is nested deeper than {MAX_DEPTH}")
        self._take()
        node = Call(OPERATIONS["^"], [base, self._sign()])
        self._depth -= 1
        return node

    def _atom(self) -> Node:
        if self._kind == "number":
            return Number(float(self._take()))
        if self._kind == "name":
            name = self._take()
            if self._token == "(":
                return self._call(name)
            if name not in self._names:
                raise self._bad(f"there is no grader {name!r}; there are {', '.join(sorted(self._names))}")
            return Score(name)
        if self._token == "(":
            self._take()
            node = self._sum()
            self._expect(")")
            return node
        raise self._bad(f"{self._token!r} was not expected" if self._token else "it ends too early")

    def _call(self, name: str) -> Node:
        if name not in FUNCTIONS:
            raise self._bad(f"there is no function {name!r}; there are {', '.join(FUNCTIONS)}")
        self._take()
        arguments = [self._sum()]
        while self._token == ",":
            self._take()
            arguments.append(self._sum())
        self._expect(")")
        if name not in SEVERAL and len(arguments) != 1:
            raise self._bad(f"{name} takes one number")
        if name in SEVERAL and len(arguments) == 1:
            return arguments[0]
        return Call(FUNCTIONS[name], arguments)

    def _expect(self, token: str) -> None:
        if self._token != token:
            raise self._bad(f"{token!r} is missing")
        self._take()

    def _take(self) -> str:
        token = self._token
        self._next()
        return token

    def _next(self) -> None:
        found = TOKEN.match(self._text, self._at)
        if found is None:
            rest = self._text[self._at :].strip()
            if rest:
                raise self._bad(f"{rest[:20]!r} cannot be read")
            self._kind, self._token = "end", ""
            return
        number, name, sign = found.groups()
        self._kind = "number" if number else "name" if name else "sign"
        self._token = number or name or sign
        self._at = found.end()

    def _bad(self, reason: str) -> InvalidRequest:
        hint = "It knows + - * / ^, parentheses, names of graders and " + ", ".join(FUNCTIONS) + "."
        return InvalidRequest(f"The formula cannot be read: {reason}.", hint=hint, code="formula_parse_error")
