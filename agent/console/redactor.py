"""Hides boot secrets in what a board prints: a kernel says its command line, and U-Boot echoes its script.

The word `boardhand.secret=` is let through, and what follows it is overwritten in place. So nothing is ever held back:
a prompt that ends in `b` is shown at once, the length of the stream stays, and a chunk may end anywhere.
"""

KEY = b"boardhand.secret="
SECRET_DIGITS = 64
"""As netboot hands them out, in hexadecimal."""
MAX_VALUE = 512
"""A stream of noise after the word is data again after this many bytes."""
MASK = ord("*")
_HEX = frozenset(b"0123456789abcdefABCDEF")
_ENDS = frozenset([*range(0x21), *b"\"'"])
_BREAKS = frozenset(b"\r\n")


class Redactor:
    """One stream; bytes in, as many bytes out, at once."""

    def __init__(self) -> None:
        self._matched = 0
        """How much of KEY the stream ends with."""
        self._hidden: int | None = None
        """Bytes of a value overwritten so far; None outside of one."""
        self._hex_only = True

    def feed(self, data: bytes) -> bytes:
        """`data` without secrets, of the same length."""
        if self._hidden is None and self._matched == 0 and KEY not in data:
            self._matched = _tail_of(data)
            return data
        out = bytearray(data)
        at = 0
        while at < len(out):
            at = self._hide(out, at) if self._hidden is not None else self._seek(out, at)
        return bytes(out)

    def _seek(self, data: bytearray, start: int) -> int:
        """Go on to behind the next KEY, or to the end."""
        known = KEY[: self._matched]
        # What was matched stands before `start`: only the beginning of `data` can go on with it.
        if known and data.startswith(KEY[len(known) :], start):
            return self._found(start + len(KEY) - len(known))
        found = data.find(KEY, start)
        if found >= 0:
            return self._found(found + len(KEY))
        tail = bytes(data[max(start, len(data) - len(KEY)) :])
        self._matched = _tail_of(known + tail if len(tail) < len(KEY) else tail)
        return len(data)

    def _found(self, end: int) -> int:
        self._matched = 0
        self._hidden = 0
        self._hex_only = True
        return end

    def _hide(self, data: bytearray, start: int) -> int:
        """Overwrite the value from `start`; returns where it ends."""
        hidden = self._hidden or 0
        for at in range(start, len(data)):
            byte = data[at]
            if byte in _BREAKS and 0 < hidden < SECRET_DIGITS and self._hex_only:
                # A line editor breaks long lines at the terminal's width: the secret may go on behind it.
                continue
            is_hex = byte in _HEX
            whole = self._hex_only and hidden >= SECRET_DIGITS and not is_hex
            if byte in _ENDS or hidden >= MAX_VALUE or whole:
                self._hidden = None
                return at
            self._hex_only = self._hex_only and is_hex
            data[at] = MASK
            hidden += 1
        self._hidden = hidden
        return len(data)


def _tail_of(data: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of KEY. `b` stands in KEY only once, at its beginning."""
    begin = data.rfind(KEY[:1], max(0, len(data) - len(KEY) + 1))
    return len(data) - begin if begin >= 0 and KEY.startswith(data[begin:]) else 0
