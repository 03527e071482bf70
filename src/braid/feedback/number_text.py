"""Read numbers written by people and models as exact fractions, with bounds on their size."""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST_NUMBER = 400
"""Characters; a longer text is not read as a number."""
LARGEST_EXPONENT = 400
"""Powers of ten; beyond this a number is not read."""

_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = re.compile(
    rf"(?P<sign>[-+]?)(?P<whole>{_INTEGER})?(?:\.(?P<digits>[0-9]*))?"
    r"(?:[eE](?P<exponent>[-+]?[0-9]{1,9})|(?:\*|x|\\times|\\cdot)10(?:\^|\*\*)\{?(?P<power>[-+]?[0-9]{1,9})\}?)?"
)
_FRACTION = re.compile(rf"([-+]?)({_INTEGER})/({_INTEGER})")
_MIXED = re.compile(rf"([-+]?)({_INTEGER})\s+([0-9]+)/([0-9]+)")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*(-?[0-9]+)\s*\}|([0-9]))\s*(?:\{\s*(-?[0-9]+)\s*\}|([0-9]))")
_UNIT = re.compile(r"(?<=[0-9.}%])\s*(?:\\text\{[^{}]*\}|\\mathrm\{[^{}]*\}|[A-Za-z°€£¥][A-Za-z°./\s]*)$")
_MAGNITUDES = re.compile(r"\b(?:hundred|thousand|million|billion|trillion|dozen|k|m|bn)s?\b", re.IGNORECASE)
_CURRENCY = re.compile(r"^([-+]?)\s*(?:\\?\$|USD|€|£|¥)\s*")
_TRANSLATION = str.maketrans({"−": "-", "–": "-", "×": "x", "\u00a0": " ", "\u202f": " "})


def parse_number(text: str, units: bool = True) -> Fraction | None:
    r"""The exact value of one number written in `text`.

    Read are integers, commas between thousands, decimals, `1e-3`, `2 \times 10^{3}`, `1/2`, `1 1/2`, `\frac{1}{2}`,
    a currency sign before and a percent sign after the number (both are ignored), and, if `units`, words after it.

    Args:
        text: any text; one longer than `LONGEST_NUMBER` is not a number.
        units: whether words may follow the number (`5 apples`); words of magnitude (`5 million`) never may.

    Returns:
        the value, or None if the text is not exactly one number, divides by zero, or has an exponent beyond
        `LARGEST_EXPONENT`; never raises.
    """
    if len(text) > LONGEST_NUMBER:
        return None
    text = text.translate(_TRANSLATION).strip().strip("$").strip().rstrip(".").strip()
    text = _CURRENCY.sub(r"\1", text)
    if units and not _MAGNITUDES.search(text):
        text = _UNIT.sub("", text)
    text = re.sub(r"\s*\\?%$", "", text)
    for read in (_decimal, _fraction, _mixed, _latex_fraction):
        value = read(text)
        if value is not None:
            return value
    return None


def same_number(text: str, reference: str, tolerance: float = 1e-6, units: bool = True) -> bool | None:
    """Whether two texts state the same number.

    Whole numbers are compared exactly; if either is not whole, up to `tolerance` relative to the reference. A percent
    sign on one side only may mean a unit or a division by 100: `50%` is equal to both `50` and `0.5`.

    Args:
        text: the number to judge.
        reference: the number to compare with.
        tolerance: at least 0, relative; 0 for exact comparison.
        units: as in `parse_number`.

    Returns:
        the verdict, or None if one of the two is not a number; never raises.
    """
    value, expected = parse_number(text, units), parse_number(reference, units)
    if value is None or expected is None:
        return None
    if _close(value, expected, tolerance):
        return True
    scale = 100 ** (_is_percentage(text) - _is_percentage(reference))
    return scale != 1 and _close(value / Fraction(scale), expected, tolerance)


def _close(value: Fraction, expected: Fraction, tolerance: float) -> bool:
    if value == expected:
        return True
    if value.denominator == expected.denominator == 1:
        return False
    return abs(value - expected) <= Fraction(tolerance) * abs(expected)


def _is_percentage(text: str) -> bool:
    return text.rstrip().rstrip(".$").endswith("%")


def _integer(text: str) -> int:
    return int(text.replace(",", ""))


def _quotient(sign: str, numerator: int, denominator: int) -> Fraction | None:
    if denominator == 0:
        return None
    return Fraction(-numerator if sign == "-" else numerator, denominator)


def _mixed(text: str) -> Fraction | None:
    match = _MIXED.fullmatch(text)
    if not match:
        return None
    sign, whole, numerator, denominator = match.groups()
    return _quotient(sign, _integer(whole) * int(denominator) + int(numerator), int(denominator))


def _fraction(text: str) -> Fraction | None:
    match = _FRACTION.fullmatch(re.sub(r"\s*/\s*", "/", text))
    return _quotient(match[1], _integer(match[2]), _integer(match[3])) if match else None


def _latex_fraction(text: str) -> Fraction | None:
    negative = text.startswith("-")
    match = _LATEX_FRACTION.fullmatch(text.lstrip("-+").lstrip() if text[:1] in "-+" else text)
    if not match:
        return None
    return _quotient("-" if negative else "", int(match[1] or match[2]), int(match[3] or match[4]))


def _decimal(text: str) -> Fraction | None:
    match = _DECIMAL.fullmatch(text.replace(" ", "") if "10" in text and re.search(r"[*x\\]", text) else text)
    if not match or not (match["whole"] or match["digits"]):
        return None
    exponent = int(match["exponent"] or match["power"] or 0)
    if abs(exponent) > LARGEST_EXPONENT:
        return None
    digits = match["digits"] or ""
    value = (
        Fraction(int((match["whole"] or "").replace(",", "") + digits), 10 ** len(digits)) * Fraction(10) ** exponent
    )
    return -value if match["sign"] == "-" else value
