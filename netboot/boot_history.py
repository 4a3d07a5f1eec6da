"""The last boots of every board, request by request, put together from what netboot, the power and the registration
tell. No I/O and no clock: `at` comes in with each call.

| heard | the board's boot before | what follows |
|---|---|---|
| power on | any | a new boot |
| power off | open | it ends |
| anything | ended less than `STRAY_S` ago | nothing: last packets of a board without power |
| anything | none, or ended | a new boot, of which nobody saw the beginning |
| a boot loader asks | registered | a new boot |
| a boot loader asks by DHCP | kernel sent, silent for `CHAIN_S` | a new boot |
| a boot script is asked for | kernel sent, silent for `RETRY_S` | a new boot |
| another registration | registered | a new boot, started by the board itself |
| anything else | open | goes into it |
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from netboot.boot_record import MAX_MISSING, POWER_WENT, Boot, BootRequest, Cause, Mark, Outcome, Via, kept
from netboot.events import DhcpSeen, FileFailed, FilePart, FileRefused, FileRequested, FileSent

BOOTS_KEPT = 10
STRANGERS_KEPT = 20
STRANGER_NAMES = 5
"""Names asked for by a stranger that are kept, the newest."""
STRAY_S = 3.0
"""Packets of a board that lost power may lie in queues, and its transfers end late."""
EARLY_S = 10.0
"""A quick board is heard before its power was read back as on; so much later it is another boot."""
CHAIN_S = 5.0
"""Boot loaders that load each other ask by DHCP again within one or two seconds; a kernel that fails and restarts the
board takes longer."""
RETRY_S = 30.0
"""U-Boot's script and iPXE fetch their configuration again, two seconds after they could not start the kernel."""
MAX_OPEN = 4096
"""Requests under way, over all boards; more than netboot serves at once."""

BOOT_LOADERS = ("U-Boot", "PXEClient", "HTTPClient", "iPXE", "gPXE", "barebox", "AAPLBSDPC")
"""How the vendor class of a boot loader begins (DHCP option 60). Kernels and their user space send another, or none."""


@dataclass(slots=True)
class Stranger:
    """Somebody who asked and is no board of ours. `mac` is empty for one who was seen by files alone."""

    first_at: datetime
    last_at: datetime
    mac: str = ""
    address: str = ""
    vendor_class: str = ""
    times: int = 0
    answered: bool = False
    names: list[str] = field(default_factory=list)


_File = FileRequested | FileSent | FilePart | FileFailed | FileRefused
_OpenKey = tuple[str, int, str, str]


class BootHistory:
    """All boards. Boots are changed in place; `take_changed` says which ones are to be stored."""

    def __init__(self, boots: Iterable[Boot] = ()) -> None:
        """`boots` as they were stored, in any order. What was under way then has been cut."""
        self._boots: dict[str, list[Boot]] = {}
        self._on: dict[str, bool] = {}
        self._strangers: OrderedDict[str, Stranger] = OrderedDict()
        self._open: OrderedDict[_OpenKey, tuple[Boot, BootRequest | None]] = OrderedDict()
        self._changed: dict[tuple[str, int], Boot] = {}
        for boot in sorted(boots, key=lambda boot: (boot.board, boot.number)):
            self._cut(boot, "the agent was restarted")
            self._boots.setdefault(boot.board, []).append(boot)
        for board, stored in self._boots.items():
            self._boots[board] = stored[-BOOTS_KEPT:]

    # --- what is known ---

    def boots(self, board: str) -> list[Boot]:
        """The board's boots, the newest first."""
        return self._boots.get(board, [])[::-1]

    def current(self, board: str) -> Boot | None:
        """The boot that is under way, or that the board runs from; None when it is off or was never heard."""
        boot = self._last(board)
        return boot if boot is not None and boot.ended is None else None

    def strangers(self) -> list[Stranger]:
        """Somebody else's boards, the one that was heard last first."""
        return list(reversed(self._strangers.values()))

    def take_changed(self, limit: int) -> list[Boot]:
        """At most `limit` boots that changed since they were taken last."""
        taken = list(self._changed.items())[:limit]
        for key, _ in taken:
            del self._changed[key]
        return [boot for _, boot in taken]

    def give_back(self, boots: Iterable[Boot]) -> None:
        """`boots` could not be stored."""
        for boot in boots:
            self._changed.setdefault((boot.board, boot.number), boot)

    # --- what is heard ---

    def power(self, board: str, *, on: bool, at: datetime) -> None:
        """The power was read back. What is read first is how it was before we looked: a board that is on goes on with
        its boot. The same again says nothing."""
        was_on = self._on.get(board)
        self._on[board] = on
        boot = self.current(board)
        if not on:
            if boot is not None and was_on is not False:
                self._end(boot, at, POWER_WENT)
        elif was_on is False:
            early = boot is not None and boot.cause is Cause.SEEN and (at - boot.began).total_seconds() < EARLY_S
            if boot is not None and early:
                boot.cause = Cause.POWER
                self._touch(boot)
            else:
                self._begin(board, Cause.POWER, at)

    def cycled(self, board: str, *, since: datetime, at: datetime) -> None:
        """A cycle that began at `since` is done; the off in it may have been too short to be told as power."""
        boot = self.current(board)
        if boot is None or boot.began < since:
            self.power(board, on=False, at=at)
            self.power(board, on=True, at=at)
        elif boot.cause is not Cause.POWER:
            boot.cause = Cause.POWER
            self._touch(boot)

    def registered(self, board: str, boot_id: str, at: datetime) -> None:
        """The board has proved that this boot is its own; the same `boot_id` again says nothing new."""
        boot = self.current(board)
        if boot is None or boot.boot_id not in {"", boot_id}:
            boot = self._begin(board, Cause.SEEN, at)
        if boot.boot_id == "":
            boot.boot_id = boot_id
            boot.reach(Mark.REGISTERED, self._now(boot, at))
            self._touch(boot)

    def event(self, event: object, at: datetime) -> None:
        """What netboot tells. Events that are about no boot are none of ours."""
        if isinstance(event, DhcpSeen):
            if event.board is None:
                self._strange_dhcp(event, at)
            else:
                self._dhcp(event, event.board, at)
        elif isinstance(event, FileSent | FilePart | FileFailed):
            self._file_ended(event, at)
        elif isinstance(event, FileRefused):
            if event.board is None:
                self._strange_file(event, at)
            elif not self._refused_late(event, at):
                self._file_refused(event, event.board, at)
        elif isinstance(event, FileRequested) and event.board is not None:
            self._file_requested(event, event.board, at)

    # --- boots ---

    def _last(self, board: str) -> Boot | None:
        boots = self._boots.get(board)
        return boots[-1] if boots else None

    def _begin(self, board: str, cause: Cause, at: datetime) -> Boot:
        boots = self._boots.setdefault(board, [])
        number = 1
        if boots:
            number = boots[-1].number + 1
            if boots[-1].ended is None:
                self._end(boots[-1], at, "the board began anew")
            at = max(at, boots[-1].last_at)
        boot = Boot(board, number, at, cause, last_at=at)
        boots.append(boot)
        del boots[:-BOOTS_KEPT]
        self._touch(boot)
        return boot

    def _end(self, boot: Boot, at: datetime, why: str) -> None:
        self._cut(boot, why)
        boot.ended = self._now(boot, at)
        self._touch(boot)

    @staticmethod
    def _cut(boot: Boot, why: str) -> None:
        """Nothing of `boot` is under way any more."""
        for request in boot.requests:
            if request.outcome is Outcome.UNDER_WAY:
                request.outcome, request.detail = Outcome.FAILED, why
        if boot.last_file is Outcome.UNDER_WAY:
            boot.last_file, boot.last_reason = Outcome.FAILED, why

    def _heard(self, board: str, at: datetime, *, by_dhcp: bool, config: bool, loader: bool) -> Boot | None:
        """The boot that something belongs to which was heard at `at`; None where it is a stray."""
        boot = self._last(board)
        if boot is None:
            return self._begin(board, Cause.SEEN, at)
        if boot.ended is not None:
            stray = 0 <= (at - boot.ended).total_seconds() < STRAY_S
            return None if stray else self._begin(board, Cause.SEEN, at)
        if not loader:
            return boot
        silent_s = (at - boot.last_at).total_seconds()
        again = Mark.REGISTERED in boot.marks
        if Mark.KERNEL in boot.marks:
            again = again or (by_dhcp and silent_s >= CHAIN_S) or (config and silent_s >= RETRY_S)
        return self._begin(board, Cause.AGAIN, at) if again else boot

    def _now(self, boot: Boot, at: datetime) -> datetime:
        """`at`, but never before what was heard already: the host's clock may be set back."""
        boot.last_at = max(at, boot.last_at)
        return boot.last_at

    def _touch(self, boot: Boot) -> None:
        self._changed[boot.board, boot.number] = boot

    # --- DHCP ---

    def _dhcp(self, event: DhcpSeen, board: str, at: datetime) -> None:
        loader = event.vendor_class.startswith(BOOT_LOADERS)
        boot = self._heard(board, at, by_dhcp=True, config=False, loader=loader)
        if boot is None:
            return
        at = self._now(boot, at)
        after_kernel = Mark.KERNEL in boot.marks and not loader
        boot.reach(Mark.SYSTEM if after_kernel else Mark.DHCP, at)
        if loader:
            boot.vendor_class = kept(event.vendor_class)
        mark, outcome = _DHCP_ANSWERS.get(event.answer, (None, Outcome.UNANSWERED))
        if outcome is Outcome.UNANSWERED and event.message_type == "REQUEST":
            mark = Mark.ELSEWHERE
        if mark is not None and not after_kernel:
            boot.reach(mark, at)
        words = [event.answer, event.address or "" if event.answer in {"OFFER", "ACK"} else ""]
        words.append(f"({event.vendor_class})" if event.vendor_class else "")
        detail = kept(" ".join(word for word in words if word))
        boot.add(BootRequest(at, Via.DHCP, kept(event.message_type), outcome, event.mac, detail=detail))
        self._touch(boot)

    # --- files ---

    def _file_requested(self, event: FileRequested, board: str, at: datetime) -> None:
        boot = self._asks(event, board, at, config=event.role in {"config", "kernel"})
        if boot is None:
            return
        at = boot.last_at
        request = BootRequest(at, Via(event.via), kept(event.path), Outcome.UNDER_WAY, event.client, event.role)
        listed = boot.add(request)
        boot.last_file, boot.last_name, boot.last_reason = Outcome.UNDER_WAY, request.name, ""
        self._open[_key(event)] = boot, request if listed else None
        while len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)

    def _asks(self, event: FileRequested | FileRefused, board: str, at: datetime, *, config: bool) -> Boot | None:
        loader = event.via == "tftp" or config  # what runs on the board may well use HTTP
        boot = self._heard(board, at, by_dhcp=False, config=config, loader=loader)
        if boot is not None:
            boot.reach(Mark.ASKED, self._now(boot, at))
            self._touch(boot)
        return boot

    def _file_ended(self, event: FileSent | FilePart | FileFailed, at: datetime) -> None:
        if event.board is None:
            return
        boot, request = self._open.pop(_key(event), (None, None))
        if boot is None:
            boot = self._last(event.board)
            if boot is None:
                return
        if boot.ended is None:
            at = self._now(boot, at)
        outcome = _ENDS[type(event)]
        reason = event.reason if isinstance(event, FileFailed) else ""
        resent = 0 if isinstance(event, FilePart) else event.resent
        if request is not None:
            if request.outcome is Outcome.UNDER_WAY:
                request.outcome, request.detail = outcome, kept(reason)
            request.size_bytes, request.seconds, request.resent = event.size_bytes, event.seconds, resent
        boot.resent += resent
        if boot.last_name == kept(event.path) and boot.last_file is Outcome.UNDER_WAY:
            boot.last_file, boot.last_reason = outcome, kept(reason)
        if isinstance(event, FileSent):
            self._sent(boot, event, at)
        self._touch(boot)

    @staticmethod
    def _sent(boot: Boot, event: FileSent, at: datetime) -> None:
        boot.files += 1
        boot.size_bytes += event.size_bytes
        if event.role == "config":
            boot.reach(Mark.CONFIG, at)
        if event.role == "kernel":
            boot.reach(Mark.KERNEL, at)
        if not boot.marks.keys() & {Mark.SYSTEM, Mark.REGISTERED}:
            boot.reach(Mark.LOADED, at)

    def _refused_late(self, event: FileRefused, at: datetime) -> bool:
        """A file that was promised and could not be opened; whether it was such a one."""
        boot, request = self._open.pop(_key(event), (None, None)) if event.number else (None, None)
        if boot is None:
            return False
        outcome = Outcome.MISSING if event.missing else Outcome.REFUSED
        if request is not None:
            request.outcome, request.detail = outcome, kept(event.reason)
        if boot.ended is None:
            boot.last_file, boot.last_name, boot.last_reason = outcome, kept(event.path), kept(event.reason)
            self._now(boot, at)
        self._touch(boot)
        return True

    def _file_refused(self, event: FileRefused, board: str, at: datetime) -> None:
        boot = self._asks(event, board, at, config=False)
        if boot is None:
            return
        name, at = kept(event.path), boot.last_at
        outcome = Outcome.MISSING if event.missing else Outcome.REFUSED
        boot.add(BootRequest(at, Via(event.via), name, outcome, event.client, detail=kept(event.reason)))
        boot.last_file, boot.last_name, boot.last_reason = outcome, name, kept(event.reason)
        if event.missing and (name in boot.missing or len(boot.missing) < MAX_MISSING):
            boot.missing[name] = boot.missing.get(name, 0) + 1

    # --- somebody else's ---

    def _strange_dhcp(self, event: DhcpSeen, at: datetime) -> None:
        stranger = self._stranger(event.mac, at)
        stranger.mac = event.mac
        stranger.vendor_class = kept(event.vendor_class) or stranger.vendor_class
        stranger.address = event.address or stranger.address
        stranger.answered = stranger.answered or event.answer in {"OFFER", "ACK"}

    def _strange_file(self, event: FileRefused, at: datetime) -> None:
        known = next((key for key, other in self._strangers.items() if other.address == event.client), event.client)
        stranger = self._stranger(known, at)
        stranger.address = event.client
        name = kept(event.path)
        stranger.names = [*(other for other in stranger.names if other != name), name][-STRANGER_NAMES:]

    def _stranger(self, key: str, at: datetime) -> Stranger:
        stranger = self._strangers.setdefault(key, Stranger(at, at))
        self._strangers.move_to_end(key)
        stranger.last_at = max(at, stranger.last_at)
        stranger.times += 1
        while len(self._strangers) > STRANGERS_KEPT:
            self._strangers.popitem(last=False)
        return stranger


_DHCP_ANSWERS = {
    "OFFER": (Mark.OFFERED, Outcome.ANSWERED),
    "ACK": (Mark.ADDRESS, Outcome.ANSWERED),
    "NAK": (Mark.DENIED, Outcome.REFUSED),
}


_ENDS: dict[type, Outcome] = {FileSent: Outcome.SENT, FilePart: Outcome.PART, FileFailed: Outcome.FAILED}


def _key(event: _File) -> _OpenKey:
    return event.via, event.number, event.client, event.path
