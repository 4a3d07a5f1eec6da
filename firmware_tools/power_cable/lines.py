"""The protocols on the cable's tty, without I/O.

A byte `@` begins a line, which a line feed ends. Outside of lines each byte is a command of its own: a hexadecimal
digit switches, `?` asks. Nothing else means anything, so both protocols live on one tty.

    @7 set 2 on            request: tag, verb, words
    @7 ok                  its answer, with the same tag
    @8 get 2*5c1a          with a checksum, and so is the answer
"""

VERSION = "1.0.0"
PROTOCOL = 1
"""Rises when a host that knew the last one would be wrong."""

START, END, STAR = 0x40, 0x0A, 0x2A
LINE_BYTES = 120
"""Of a request. The longest has 23."""
LINE_TIMEOUT_MS = 1000
"""A line that is not ended after this was left by a host that died; what comes next begins anew."""
TAG_CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
TAG_LENGTH = 8
CHARACTERS = b"0123456789abcdefABCDEF?"

CHARACTER, LINE, TOO_LONG = "character", "line", "too long"


class LineError(Exception):
    """A request that is not obeyed. `kind` is the first word of the answer's text, for programs."""

    def __init__(self, kind: str, text: str, tag: str = "-", checked: bool = False) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.tag = tag
        self.checked = checked


class Receiver:
    """Splits what comes in. Holds at most one line."""

    def __init__(self) -> None:
        self.noise = 0
        """Bytes that meant nothing."""
        self._line: bytearray | None = None
        self._skipping = False
        self._last_ms = 0

    def feed(self, data: bytes, now_ms: int) -> list[tuple[str, bytes]]:
        """What is complete now, in order: `(CHARACTER, one byte)`, `(LINE, its bytes without @ and end)`, and once for
        each line that is too long `(TOO_LONG, b"")`."""
        found: list[tuple[str, bytes]] = []
        if now_ms - self._last_ms > LINE_TIMEOUT_MS and (self._line is not None or self._skipping):
            self.noise += len(self._line or b"")
            self._line = None
            self._skipping = False
        self._last_ms = now_ms
        for byte in data:
            self._take(byte, found)
        return found

    def _take(self, byte: int, found: list[tuple[str, bytes]]) -> None:
        if self._skipping:
            self.noise += 1
            self._skipping = byte != END
        elif byte == START:  # also in the middle of a line, whose end was lost
            self.noise += len(self._line or b"")
            self._line = bytearray()
        elif self._line is None:
            if byte in CHARACTERS:
                found.append((CHARACTER, bytes([byte])))
            elif byte not in b"\r\n":
                self.noise += 1
        elif byte == END:
            found.append((LINE, bytes(self._line)))
            self._line = None
        elif len(self._line) >= LINE_BYTES:
            self.noise += len(self._line) + 1
            self._line = None
            self._skipping = True
            found.append((TOO_LONG, b""))
        else:
            self._line.append(byte)


def checksum(data: bytes) -> str:
    """Four hexadecimal digits: CRC-16/CCITT-FALSE (polynomial 1021, begun with FFFF) of what stands between `@` and
    `*`."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return f"{crc:04x}"


def request(line: bytes, must_be_checked: bool = False) -> tuple[str, list[str], bool]:
    """The tag of a line, its words, and whether it had a checksum.

    Raises:
        LineError: it is none of ours.
    """
    line = line.rstrip(b"\r")
    star = line.rfind(b"*")
    checked = star >= 0
    content = line[:star] if checked else line
    for byte in content:
        if not 0x20 <= byte <= 0x7E:
            raise LineError("line", "a line has printable ASCII alone")
    if checked and line[star + 1 :].lower() != checksum(content).encode():
        raise LineError("checksum", "the line was changed on its way")
    if must_be_checked and not checked:
        raise LineError("checksum", "this cable wants lines with a checksum")
    words = content.decode().split()
    if not words or len(words[0]) > TAG_LENGTH or not all(letter in TAG_CHARACTERS for letter in words[0]):
        raise LineError("line", f"a line begins with @ and a tag of 1 to {TAG_LENGTH} of 0-9 a-z", checked=checked)
    return words[0], words[1:], checked


def answer(tag: str, text: str, checked: bool) -> bytes:
    """The bytes of an answer."""
    content = f"{tag} {text}".encode()
    if checked:
        content += b"*" + checksum(content).encode()
    return b"@" + content + b"\n"
