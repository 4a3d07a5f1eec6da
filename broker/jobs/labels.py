"""What a job wants of a board's labels: equality, any of a list, or a comparison written as a string.

`arch: arm64` · `arch: [arm64, armhf]` · `memory_mb: ">= 2048"` · `vendor: "!= acme"`.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Scalar = str | int | float | bool
LabelValue = Scalar | tuple[str, ...]

_COMPARISON = re.compile(r"^(>=|<=|==|!=|>|<)\s*(.+)$")
_ORDER: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def _number(value: Scalar) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _folded(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _same(have: Scalar, want: Scalar) -> bool:
    left, right = _number(have), _number(want)
    if left is not None and right is not None:
        return left == right
    return _folded(have) == _folded(want)


@dataclass(frozen=True, slots=True)
class Want:
    """One requirement on one label. `sign` is one of `== != >= <= > <`; several values mean any of them."""

    label: str
    sign: str
    values: tuple[Scalar, ...]

    @classmethod
    def parse(cls, label: str, written: object) -> "Want":
        """A requirement as a job's YAML gives it.

        Raises:
            ValueError: it is neither a scalar nor a list of scalars, or something that is no number is compared.
        """
        if isinstance(written, list):
            if not written or not all(isinstance(item, str | int | float | bool) for item in written):
                raise ValueError("a list of wanted values must hold plain words or numbers, and at least one")
            return cls(label, "==", tuple(written))
        if isinstance(written, str) and (match := _COMPARISON.match(written.strip())):
            sign, operand = match[1], match[2].strip()
            if sign in _ORDER and _number(operand) is None:
                raise ValueError(f'{written!r} compares with no number: write for example "{sign} 2048"')
            return cls(label, sign, (operand,))
        if isinstance(written, str | int | float | bool):
            return cls(label, "==", (written,))
        raise ValueError("write a word, a number, true or false, a list of them, or a comparison as a string")

    def met_by(self, labels: Mapping[str, LabelValue]) -> bool:
        """Whether a board with these labels will do. A label that is not there meets nothing, not even `!=`."""
        have = labels.get(self.label)
        if have is None:
            return False
        held = have if isinstance(have, tuple) else (have,)
        if self.sign == "==":
            return any(_same(one, want) for one in held for want in self.values)
        if self.sign == "!=":
            return not any(_same(one, want) for one in held for want in self.values)
        bound = _number(self.values[0])
        return bound is not None and any(
            (number := _number(one)) is not None and _ORDER[self.sign](number, bound) for one in held
        )

    def __str__(self) -> str:
        text = " or ".join(_folded(value) for value in self.values)
        return f"{self.label}={text}" if self.sign == "==" else f"{self.label} {self.sign} {text}"
