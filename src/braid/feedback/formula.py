"""A safe parser for formulas in plain or LaTeX-like notation: text in, nested tuples out, nothing evaluated.

Nodes are `("number", Fraction)`, `("decimal", Fraction)`, `("symbol", name)`, `("call", function, node)`,
`("factorial", node)`, `("negative", node)` and `(operation, left, right)` with operation one of `+ - * / ^`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, NoReturn

Node = tuple[Any, ...]

LONGEST_FORMULA = 512
"""Characters."""
DEEPEST_NESTING = 40
"""Levels of brackets, signs and exponents."""
MOST_DIGITS = 100
"""Digits of one number."""

FUNCTIONS = frozenset(
    {"sqrt", "cbrt", "exp", "ln", "log", "abs", "sin", "cos", "tan", "cot", "sec", "csc"}
    | {"arcsin", "arccos", "arctan", "asin", "acos", "atan", "sinh", "cosh", "tanh"}
)
GREEK = frozenset(
    {"alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "nu", "rho", "sigma", "tau", "phi", "omega"}
)

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"|(?P<name>\\?[A-Za-z]+)(?P<index>_(?:[A-Za-z0-9]|\{[A-Za-z0-9]{1,8}\}))?"
    r"|(?P<mark>\*\*|[-+*/^(){}\[\]|!]))"
)
_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|quad|[,;:! ])|\$|\\[()\[\]]|\^\{?\\circ\}?|°|~"
    r"|\\(?:text|mathrm|mbox)\{[^{}]*\}"
)
_REWRITTEN = (("\\cdot", "*"), ("\\times", "*"), ("\\div", "/"), ("×", "*"), ("·", "*"), ("÷", "/"), ("−", "-"))
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class FormulaError(ValueError):
    """The text is not within the grammar or the limits of this parser."""


def parse_formula(text: str) -> Node:
    r"""The syntax tree of a formula.

    Understood are decimal numbers, letters (a run of letters that names nothing known is a product of letters),
    subscripts, `+ - * / ^ ! |x|`, brackets, products without a sign, the functions in `FUNCTIONS`, and of LaTeX
    `\frac`, `\sqrt[n]{}`, `\cdot`, `\times`, `\pi` and Greek letters. There are no attributes, no strings and no calls
    other than of `FUNCTIONS`.

    Args:
        text: at most `LONGEST_FORMULA` characters.

    Raises:
        FormulaError: the text does not belong to this grammar, or is longer or more deeply nested than the limits.
    """
    if len(text) > LONGEST_FORMULA:
        raise FormulaError(f"{len(text)} characters; at most {LONGEST_FORMULA} are read")
    for old, new in _REWRITTEN:
        text = text.replace(old, new)
    text = re.sub(r"\\[dt]frac", r"\\frac", _DROPPED.sub(" ", text))
    parser = _Parser(_tokens(text.replace("π", " pi ").replace("√", " sqrt ")))
    node = parser.sum()
    if parser.peek():
        parser.fail()
    return node


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position, text = 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if not match:
            raise FormulaError(f"unexpected {text[position]!r}")
        position = match.end()
        if match["name"]:
            tokens.extend(_names(match["name"], (match["index"] or "").replace("{", "").replace("}", "")))
        else:
            tokens.append("^" if match["mark"] == "**" else (match["number"] or match["mark"]))
    return tokens


def _names(written: str, index: str) -> list[str]:
    name = written.lstrip("\\")
    if name in GREEK or (not index and (name in FUNCTIONS or name in {"pi", "frac"})):
        return [name + index]
    if len(name) > 8 or name in FUNCTIONS or written != name:
        raise FormulaError(f"unknown name {name!r}")
    return [*name[:-1], name[-1] + index]


class _Parser:
    """Recursive descent over tokens; every nested call passes through `nested`, which counts the depth."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.open_bars = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            self.fail()
        self.position += 1
        return token

    def fail(self) -> NoReturn:
        raise FormulaError(f"unexpected {self.peek() or 'end'!r} at token {self.position}")

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST_NESTING:
            raise FormulaError(f"nested more than {DEEPEST_NESTING} deep")
        node = self.product()
        while self.peek() in {"+", "-"}:
            node = (self.take(), node, self.product())
        self.depth -= 1
        return node

    def product(self) -> Node:
        node = self.signed()
        while True:
            token = self.peek()
            if token in {"*", "/"}:
                node = (self.take(), node, self.signed())
            elif token in {"(", "[", "{"} or token[:1].isalnum() or (token == "|" and not self.open_bars):
                if token[0].isdigit() and self.tokens[self.position - 1][0].isdigit():
                    self.fail()
                node = ("*", node, self.power())
            else:
                return node

    def signed(self) -> Node:
        negative = False
        while self.peek() in {"+", "-"}:
            negative ^= self.take() == "-"
        node = self.power()
        return ("negative", node) if negative else node

    def power(self) -> Node:
        node = self.atom()
        while self.peek() == "!":
            self.take()
            node = ("factorial", node)
        if self.peek() != "^":
            return node
        self.take()
        self.depth += 1
        if self.depth > DEEPEST_NESTING:
            raise FormulaError(f"nested more than {DEEPEST_NESTING} deep")
        exponent = self.signed()
        self.depth -= 1
        return ("^", node, exponent)

    def atom(self) -> Node:
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            return _number(token)
        if token in _CLOSING:
            return self.closed(_CLOSING[token])
        if token == "|":
            self.open_bars += 1
            node = self.closed("|")
            self.open_bars -= 1
            return ("call", "abs", node)
        if token == "frac":
            return ("/", self.argument(), self.argument())
        if token == "sqrt" and self.peek() == "[":
            self.take()
            root = self.closed("]")
            return ("^", self.argument(), ("/", ("number", Fraction(1)), root))
        if token in FUNCTIONS:
            return self.call(token)
        if token[0].isalpha():
            return ("symbol", token)
        self.position -= 1
        self.fail()

    def closed(self, mark: str) -> Node:
        node = self.sum()
        self.take(mark)
        return node

    def argument(self) -> Node:
        """A braced group, or as in LaTeX one digit or letter (`\\frac12`)."""
        token = self.take()
        if token == "{":
            return self.closed("}")
        if token[0].isdigit() and len(token) > 1:
            self.tokens[self.position - 1 : self.position] = [token[0], token[1:]]
            token = token[0]
        if token[0].isdigit():
            return _number(token)
        if not token[0].isalpha() or token in FUNCTIONS or token == "frac":
            self.fail()
        return ("symbol", token)

    def call(self, function: str) -> Node:
        exponent = None
        if self.peek() == "^":
            self.take()
            exponent = self.argument()
        bracket = self.peek()
        argument = self.closed(_CLOSING[self.take()]) if bracket in _CLOSING else self.power_of_call()
        node: Node = ("call", function, argument)
        return ("^", node, exponent) if exponent else node

    def power_of_call(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST_NESTING:
            raise FormulaError(f"nested more than {DEEPEST_NESTING} deep")
        node = self.power()
        while self.peek()[:1].isalpha() and self.peek() not in FUNCTIONS:
            node = ("*", node, self.power())
        self.depth -= 1
        return node


def _number(token: str) -> Node:
    if len(token) > MOST_DIGITS:
        raise FormulaError(f"a number of more than {MOST_DIGITS} digits")
    return ("decimal" if "." in token else "number", Fraction(token.replace(",", "")))
