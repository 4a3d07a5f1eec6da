"""What may stand behind the options of `boardhand energy`. Light, because every command line imports it."""

import re
from argparse import ArgumentTypeError
from datetime import datetime

UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
MAX_BACK_S = 400 * 86400
"""Days are kept for this long."""


def since(text: str) -> float | str:
    """`24h`, `7d`, `90m`, `2w` as seconds back, which the agent counts on its own clock; a date or a time as RFC 3339,
    local where it has no offset.

    Raises:
        ArgumentTypeError: it is none of these, or lies too far back.
    """
    match = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    if match is not None:
        seconds = int(match[1]) * UNITS_S[match[2]]
        if not 0 < seconds <= MAX_BACK_S:
            raise ArgumentTypeError(f"{text!r}: from 1m to {MAX_BACK_S // 86400}d can be told")
        return float(seconds)
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError, OSError):
        raise ArgumentTypeError(f"{text!r} is no time: write 24h, 7d, or 2026-11-01") from None


def price(text: str) -> float:
    """The price of 1 kWh.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise ArgumentTypeError(f"{text!r} is no price of 1 kWh")
    return value
