"""What netboot tells of a board, as lines for people: at most 100 columns, the newest boot first."""

import textwrap
from datetime import datetime

from cli.plain_text import shown
from wire.netboot import BootReport, BootRequestInfo, RequestOutcome, Served, ServedFile, StrangerInfo

WIDTH = 100
NAME_WIDTH = 36
"""`pxelinux.cfg/01-` and a MAC address fit."""
_LABEL_WIDTH = 12
_KIB = 1024
_PHASES = {
    "to-dhcp": "to DHCP",
    "to-first-file": "to the first file",
    "loading": "loading",
    "to-registered": "from the last file to registered",
}
_CAUSES = {
    "power": "switched on",
    "again": "its boot loader asked again while it was up",
    "seen": "heard; nobody saw it switched on",
}
_OUTCOMES = {
    RequestOutcome.UNDER_WAY: "under way",
    RequestOutcome.UNANSWERED: "not answered",
    RequestOutcome.PART: "in part",
    RequestOutcome.MISSING: "NOT THERE",
    RequestOutcome.REFUSED: "REFUSED",
    RequestOutcome.FAILED: "FAILED",
}


def amount(size_bytes: int) -> str:
    """A size for people: `312 B`, `4.6 MB` (decimal, as rates are)."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def duration(seconds: float) -> str:
    """`0.02 s`, `8.7 s`, `95 s`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds:.0f} s"


def _wrapped(first: str, rest: str, text: str) -> list[str]:
    return textwrap.wrap(
        shown(text, 4096), WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    ) or [first.rstrip()]


def _labelled(label: str, text: str) -> list[str]:
    return _wrapped(f"  {label:<{_LABEL_WIDTH}}", "  " + " " * _LABEL_WIDTH, text)


# --- what is served --------------------------------------------------------------------------------------------


def served_lines(served: Served) -> list[str]:
    """What the board would be served, and why."""
    found = _labelled("served", "nothing: " + served.problem) if served.problem is not None else []
    if served.macs:
        found += _labelled("known by", ", ".join(served.macs))
    if served.address is not None:
        where = f", from {served.server} on {served.interface}" if served.server is not None else ""
        found += _labelled("address", served.address + where)
    if served.profile is not None:
        found += _labelled("profile", f"{served.profile} ({served.arch})")
    if served.boot_files:
        found += _labelled("DHCP names", "; ".join(f"{entry.name} to {entry.client}" for entry in served.boot_files))
    for file in served.files:
        found += _labelled(file.role, _file(file)) if file.path is not None else []
    made = [file.name for file in served.files if file.path is None]
    found += _labelled("made here", f"{', '.join(made)}, when they are asked for") if made else []
    if served.cmdline is not None:
        found += _labelled("cmdline", served.cmdline)
    for number, reason in enumerate(served.why):
        found += _labelled("" if number else "why", reason)
    return found


def _file(file: ServedFile) -> str:
    size = "" if file.size_bytes is None else f", {amount(file.size_bytes)}"
    problem = "" if file.problem is None else f": CANNOT BE SENT, {file.problem}"
    return f"{file.name}: {file.path}{size}{problem}"


# --- boots -----------------------------------------------------------------------------------------------------


def boot_lines(boot: BootReport) -> list[str]:
    """One boot: how it went, how long its parts took, what it asked for, and what to check where it stopped."""
    diagnosis = boot.diagnosis
    cause = _CAUSES.get(boot.cause, shown(boot.cause, 40))
    found = [f"boot {boot.number}, {_time(boot.began)}, {cause}"]
    word = "STOPPED" if diagnosis.stopped else "so far"
    head = diagnosis.what if diagnosis.place == "up" else f"{word}: {diagnosis.what}"
    found += _wrapped("  ", "  ", head)
    if boot.phases:
        parts = [f"{_PHASES.get(phase.name, shown(phase.name, 40))} {duration(phase.seconds)}" for phase in boot.phases]
        found += _wrapped("  ", "    ", "; ".join(parts))
    found += [line for request in boot.requests for line in _request(request, boot.began)]
    if boot.not_listed:
        found.append(f"    and {boot.not_listed} more requests")
    for word, texts in (("because", diagnosis.evidence), ("check", diagnosis.check)):
        for number, text in enumerate(texts):
            found += _labelled("" if number else word, text)
    return found


def _time(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def _request(request: BootRequestInfo, began: datetime) -> list[str]:
    since = f"+{max(0.0, (request.at - began).total_seconds()):.2f}"
    name = shown(request.name, 200)
    head = f"  {since:>8} s  {request.via.value.upper():<4}  "
    again = f"  ({request.times} times)" if request.times > 1 else ""
    rest = _said(request) + again
    line = f"{head}{name:<{NAME_WIDTH}}  {rest}".rstrip()
    if len(line) <= WIDTH:
        return [line]
    indent = " " * len(head)
    return [*_wrapped(head, indent, name), *_wrapped(indent + "  ", indent + "  ", rest)]


def _said(request: BootRequestInfo) -> str:
    detail = shown(request.detail, 200)
    resent = f", {request.resent} resent" if request.resent else ""
    match request.outcome:
        case RequestOutcome.SENT:
            rate = "" if request.mb_per_s is None or request.size_bytes < 64 * _KIB else f"{request.mb_per_s:.1f} MB/s"
            figures = f"{amount(request.size_bytes):>8}  {duration(request.seconds):>7}  {rate:>10}"
            return (figures + resent).rstrip()
        case RequestOutcome.ANSWERED:
            return detail
        case RequestOutcome.MISSING:
            return _OUTCOMES[request.outcome]
        case other:
            return f"{_OUTCOMES[other]}{': ' if detail else ''}{detail}{resent}"


def stranger_lines(strangers: list[StrangerInfo]) -> list[str]:
    """Who else was heard, and is no board of this agent."""
    found = ["heard on the board network, and no board of this agent:"]
    for stranger in strangers:
        who = shown(stranger.mac or stranger.address or "somebody", 40)
        words = [f"{stranger.times} times, last {_time(stranger.last_at)}"]
        words += [shown(stranger.vendor_class, 60)] if stranger.vendor_class else []
        words += ["given an address"] if stranger.answered else []
        words += [f"asked for {', '.join(shown(name, 60) for name in stranger.names)}"] if stranger.names else []
        found += _wrapped(f"  {who:<19}", " " * 21, "; ".join(words))
    return found
