"""What the cable remembers of its outlets, and when it writes it down, without I/O.

A reset by the watchdog or by request leaves the chip's scratch registers alone, so the state is kept there at each
change. Power that was away takes them; where the settings want the last state back after that, it goes to flash, when
it has been the same for a while: flash bears some 100,000 erasures.
"""

MAGIC = 0xB0A4
STEADY_MS = 10_000
"""A state that was there for so long is worth a write to flash."""
WRITE_GAP_MS = 60_000
"""At most one write a minute: 100,000 of them last for 69 days of nothing else, on one block alone."""


def kept_word(bits: int) -> int:
    """The 32 bits of a scratch register that hold the state `bits` (bit 0 is outlet 1)."""
    return MAGIC << 16 | (~bits & 0xFF) << 8 | bits & 0xFF


def kept_bits(word: int) -> int | None:
    """The state in a scratch register, or None where it holds none of ours."""
    bits = word & 0xFF
    return bits if word == kept_word(bits) else None


def first_bits(word: int, stored: int | None, at_power_on: list[str]) -> int:
    """The state to begin with: that before the reset, or what the settings want after power was away."""
    kept = kept_bits(word)
    if kept is not None:
        return kept & ((1 << len(at_power_on)) - 1)
    bits = 0
    for number, wish in enumerate(at_power_on):
        if wish == "on" or (wish == "last" and stored is not None and stored >> number & 1):
            bits |= 1 << number
    return bits


class Flash:
    """When the state goes to flash."""

    def __init__(self, stored: int | None) -> None:
        self._stored = stored
        self._bits: int | None = None
        self._since_ms = 0
        self._wrote_ms: int | None = None

    def due(self, bits: int, now_ms: int) -> bool:
        """Whether `bits`, the state now, is to be written. Call it often; say `written` when it was."""
        if bits != self._bits:
            self._bits = bits
            self._since_ms = now_ms
        if bits == self._stored or now_ms - self._since_ms < STEADY_MS:
            return False
        return self._wrote_ms is None or now_ms - self._wrote_ms >= WRITE_GAP_MS

    def written(self, bits: int, now_ms: int) -> None:
        """It was tried; where it failed, the next try is as far away as another write."""
        self._stored = bits
        self._wrote_ms = now_ms
