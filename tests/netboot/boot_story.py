"""A board, told second by second to the history of boots."""

from datetime import UTC, datetime, timedelta
from typing import Any

from netboot.boot_diagnosis import Diagnosis, diagnose
from netboot.boot_history import BootHistory
from netboot.boot_record import Boot
from netboot.events import DhcpSeen, FileFailed, FileRefused, FileRequested, FileSent, Role

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MAC, ADDRESS = "52:54:00:77:00:01", "10.77.0.11"
UBOOT = "U-Boot.armv8"


class Story:
    """A board, told second by second."""

    def __init__(self, history: BootHistory | None = None, board: str = "pi") -> None:
        self.history = history or BootHistory()
        self.board = board
        self.now = NOON
        self.number = 0

    def later(self, seconds: float) -> "Story":
        self.now += timedelta(seconds=seconds)
        return self

    def power(self, on: bool) -> "Story":
        self.history.power(self.board, on=on, at=self.now)
        return self

    def cycle(self) -> "Story":
        return self.power(False).later(1).power(True)

    def dhcp(self, kind: str, answer: str = "", vendor: str = UBOOT, mac: str = MAC) -> "Story":
        board = self.board if mac == MAC else None
        self.history.event(DhcpSeen(mac, board, ADDRESS if answer else None, vendor, kind, answer), self.now)
        return self

    def lease(self, vendor: str = UBOOT) -> "Story":
        return self.dhcp("DISCOVER", "OFFER", vendor).dhcp("REQUEST", "ACK", vendor)

    def ask(self, path: str, role: Role = "other") -> "Story":
        self.number += 1
        self.history.event(FileRequested(self.board, ADDRESS, path, role, number=self.number), self.now)
        return self

    def fetch(
        self, path: str, role: Role = "other", size: int = 1000, seconds: float = 0.5, resent: int = 0
    ) -> "Story":
        self.ask(path, role).later(seconds)
        sent = FileSent(self.board, ADDRESS, path, role, size, seconds, resent, number=self.number)
        self.history.event(sent, self.now)
        return self

    def miss(self, *paths: str) -> "Story":
        for path in paths:
            refused = FileRefused(ADDRESS, path, "no such file for this board", self.board, missing=True)
            self.history.event(refused, self.now)
        return self

    def fail(self, path: str, reason: str, role: Role = "kernel") -> "Story":
        self.history.event(
            FileFailed(self.board, ADDRESS, path, role, reason, 1000, 1.0, 3, number=self.number), self.now
        )
        return self

    def refuse(self, path: str, reason: str, number: int = 0) -> "Story":
        self.history.event(FileRefused(ADDRESS, path, reason, self.board, number=number), self.now)
        return self

    def booted(self) -> "Story":
        """From power to a registered board, 12 s."""
        self.cycle().later(2).lease().later(1).fetch("boot.scr.uimg", "config", 312)
        return self.fetch("kernel.gz", "kernel", 9_000_000, 1.5).later(7).boot_id("one")

    def boot_id(self, boot_id: str) -> "Story":
        self.history.registered(self.board, boot_id, self.now)
        return self

    @property
    def boots(self) -> list[Boot]:
        return self.history.boots(self.board)

    def place(self, **more: Any) -> Diagnosis:
        return diagnose(self.boots[0], self.now, strangers=self.history.strangers(), **more)
