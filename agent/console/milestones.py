"""What a board's console says of its boot: a table of patterns. Bytes in, milestones out; no I/O.

Adapters print garbage when a board's power comes, so patterns may follow it; they may not follow readable text: a log
line that tells of a panic somewhere else is none.
"""

import re
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

LINES_KEPT = 50
"""How much of a console a fault shows."""
LINE_MOST = 400
"""Characters of a line that are shown."""
PARTIAL_MOST = 4096
"""A line longer than this is cut: noise has no line ends."""
MATCHES_MOST = 100
"""Of one piece of the console: a board that floods with them says nothing more by it, and must not hold others up."""
TAIL_KEPT = 64 * 1024
"""Bytes of the console that the last lines are cut from."""


class Kind(StrEnum):
    """What was seen."""

    BOOTLOADER = "bootloader"
    KERNEL = "kernel"
    INIT = "init"
    """The first program of user space runs."""
    LOGIN = "login"
    PANIC = "panic"
    OOPS = "oops"
    WATCHDOG = "watchdog"
    RESTART = "restart"
    """The board says that it restarts."""


_BEGIN = rb"(?:^|(?<=[^\x20-\x7e]))[ \t]*"
"""The begin of a line, also behind garbage."""
_PRINTK = rb"(?:<\d{1,2}>)?(?:\[ *\d{1,9}\.\d{1,6}\](?:\[ *[TC]\d{1,8}\])? ?)?"

PATTERNS: tuple[tuple[Kind, bytes], ...] = (
    (Kind.BOOTLOADER, rb"U-Boot (?:SPL |TPL |VPL )?20\d\d\.\d\d"),
    (Kind.BOOTLOADER, rb"barebox 20\d\d\.\d\d"),
    (Kind.BOOTLOADER, rb"NOTICE:  BL\d\w*: v\d"),  # Trusted Firmware-A
    (Kind.BOOTLOADER, rb"UEFI firmware \(version"),
    (Kind.BOOTLOADER, rb"iPXE initialising devices"),
    (Kind.BOOTLOADER, rb"OpenSBI v\d"),
    (Kind.KERNEL, rb"Booting Linux on physical CPU"),
    (Kind.KERNEL, rb"Linux version \d+\.\d+"),
    (Kind.INIT, rb"Run /\S+ as init process"),
    (Kind.INIT, rb"systemd\[1\]: systemd \d+"),
    (Kind.PANIC, rb"Kernel panic - not syncing"),
    (Kind.OOPS, rb"Internal error: Oops"),
    (Kind.OOPS, rb"Unable to handle kernel "),
    (Kind.OOPS, rb"BUG: (?:unable to handle|kernel NULL pointer|KASAN)"),
    (Kind.OOPS, rb"Oops(?:\[#\d+\]|: [0-9a-f]{4} \[#\d+\])"),
    (Kind.OOPS, rb"kernel BUG at "),
    (Kind.WATCHDOG, rb"watchdog: BUG: soft lockup"),
    (Kind.WATCHDOG, rb"(?:NMI watchdog|watchdog): Watchdog detected hard LOCKUP"),
    (Kind.WATCHDOG, rb"rcu: INFO: rcu_\w+ (?:self-)?detected (?:expedited )?stall"),
    (Kind.WATCHDOG, rb"INFO: task \S{1,64} blocked for more than"),
    (Kind.WATCHDOG, rb"(?:Reset cause|reset_reason|Reset Status): ?\S{0,16}(?:WDOG|WDT|watchdog)"),
    (Kind.RESTART, rb"reboot: (?:Restarting system|machine restart|System halted|Power down)"),
    (Kind.RESTART, rb"resetting \.\.\."),
)
"""What begins a line, after the kernel's time stamp. Case counts."""

_ALL = re.compile(
    _BEGIN
    + _PRINTK
    + rb"(?:"
    + b"|".join(b"(?P<p%d>%s)" % (number, pattern) for number, (_, pattern) in enumerate(PATTERNS))
    + rb")",
    re.MULTILINE,
)
_LIKELY = re.compile(
    rb"U-Boot|barebox|NOTICE|UEFI|iPXE|OpenSBI|Linux|as init|systemd|panic|Oops|Unable|BUG|atchdog|rcu:|blocked"
    rb"|eset|eboot"
)
"""Whether a search is worth its time: one of these words stands in all that the table finds."""
_LOGIN = re.compile(rb"(?:^|[\r\n])(?![Ll]ast )[\w.-]{1,64} login: ?\Z")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)?|.)")


@dataclass(frozen=True, slots=True)
class Milestone:
    """One sight, with the line that matched."""

    kind: Kind
    line: str


def readable(line: bytes, most: int = LINE_MOST) -> str:
    """A line for people: no escape sequences, no control characters, what is no UTF-8 as `\\xNN`; `most` characters."""
    text = _ESCAPES.sub("", line.decode("utf-8", "backslashreplace"))
    text = "".join(c if c.isprintable() or c == "\t" else "" for c in text).rstrip()
    return text if len(text) <= most else text[: most - 1] + "…"


class ConsoleWatch:
    """Watches one console."""

    def __init__(self) -> None:
        self._partial = b""
        self._login_told = False
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0

    def feed(self, data: bytes) -> list[Milestone]:
        """Take what came; returns what it tells, in order."""
        self._keep(data)
        text = self._partial + data
        end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        if end == 0 and len(text) > PARTIAL_MOST:
            end = len(text)
        found = _matches(text[:end]) if end else []
        if end:
            self._login_told = False
        self._partial = text[end:][-PARTIAL_MOST:]
        if not self._login_told and (match := _LOGIN.search(self._partial)) is not None:
            self._login_told = True
            found.append(Milestone(Kind.LOGIN, readable(match[0])))
        return found

    def last_lines(self, count: int = LINES_KEPT) -> list[str]:
        """The last lines that are not empty, oldest first; one that has not ended is among them."""
        lines = re.split(rb"[\r\n]+", b"".join(self._tail))
        shown = (readable(line) for line in reversed(lines))
        found = []
        for line in shown:
            if line:
                found.append(line)
            if len(found) == count:
                break
        return found[::-1]

    def forget(self) -> None:
        """The board lost its power: what follows is another boot."""
        self._partial = b""
        self._login_told = False
        self._tail.clear()
        self._tail_bytes = 0

    def _keep(self, data: bytes) -> None:
        self._tail.append(data[-TAIL_KEPT:])
        self._tail_bytes += len(self._tail[-1])
        while self._tail_bytes - len(self._tail[0]) >= TAIL_KEPT:
            self._tail_bytes -= len(self._tail.popleft())


def _matches(text: bytes) -> list[Milestone]:
    if _LIKELY.search(text) is None:
        return []
    found = []
    for match in islice(_ALL.finditer(text), MATCHES_MOST):
        kind = PATTERNS[int((match.lastgroup or "p0")[1:])][0]
        ends = [at for at in (text.find(b"\n", match.end()), text.find(b"\r", match.end())) if at >= 0]
        line = text[match.start() : min(ends, default=len(text))]
        found.append(Milestone(kind, readable(line)))
    return found


EVENTS_PER_BOOT = 20
"""Of one kind: a driver that oopses a thousand times a second tells nothing new."""
EVENTS_BURST, EVENT_EVERY_S = 60, 1.0
"""Over all boots: a board that restarts for ever tells so once a second, and not as often as it can."""
RESTART_EVERY_S = 0.5
"""No board boots faster; what looks so is a text full of banners."""
_RUNNING = frozenset({Kind.KERNEL, Kind.INIT, Kind.LOGIN})
_ENDING = frozenset({Kind.PANIC, Kind.RESTART})


class BootStory:
    """The milestones of one boot at a time: which are told, and where a boot begins that no power switch began."""

    def __init__(self) -> None:
        self.seen: dict[Kind, int] = {}
        self.reached: Kind | None = None
        """The last milestone of this boot."""
        self.restarted = False
        """This boot began with a boot loader's banner after a system had run."""
        self._restarted_at = float("-inf")
        self._tokens = float(EVENTS_BURST)
        self._counted_at = 0.0

    def begin(self) -> None:
        """A new boot."""
        self.seen = {}
        self.reached = None
        self.restarted = False

    def take(self, milestone: Milestone, now: float) -> tuple[bool, bool]:
        """Returns `(it begins another boot, it is to be told)`; `now` in seconds, monotonic."""
        kind = milestone.kind
        ran = bool(_RUNNING & self.seen.keys())
        ended = bool(_ENDING & self.seen.keys())
        # `dmesg` on the console prints a kernel's first lines again: those alone are no new boot.
        anew = (kind is Kind.BOOTLOADER and (ran or ended)) or (kind is Kind.KERNEL and ran and ended)
        anew = anew and now - self._restarted_at >= RESTART_EVERY_S
        if anew:
            self._restarted_at = now
            self.begin()
            self.restarted = kind is Kind.BOOTLOADER
        count = self.seen.get(kind, 0)
        self.seen[kind] = count + 1
        self.reached = kind
        # A banner and a version say the same once more: SPL before U-Boot, and two lines at the start of a kernel.
        most = 1 if kind in {Kind.BOOTLOADER, Kind.KERNEL, Kind.INIT, Kind.PANIC} else EVENTS_PER_BOOT
        return anew, count < most and self._may_tell(now)

    def _may_tell(self, now: float) -> bool:
        passed_s, self._counted_at = now - self._counted_at, now
        self._tokens = min(EVENTS_BURST, self._tokens + passed_s / EVENT_EVERY_S)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
