"""Presence, wired: netlink sockets and sysfs outside, the book in the middle."""

import asyncio
import importlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agent.presence import uevents, usb_scan
from agent.presence.observations import BoardMarks, Observation, PresenceBook, Sign, UsbSeen
from agent.presence.sockets import (
    NETLINK_KOBJECT_UEVENT,
    NETLINK_ROUTE,
    RECEIVE_BUFFER_BYTES,
    UEVENT_GROUP,
    NetlinkSocket,
)

if TYPE_CHECKING:
    from agent.presence.routes import RouteReader

log = logging.getLogger(__name__)

SYSFS = Path("/sys")


class PresenceWatch:
    """Looks at links, neighbours and USB devices between `start` and `stop`.

    `on_signs` hears what changed for a board; `on_observation` everything, also what belongs to no board. Both run in
    the event loop and must not block.
    """

    def __init__(
        self,
        boards: Mapping[str, BoardMarks],
        on_signs: Callable[[list[Sign]], None],
        on_observation: Callable[[Observation], None] = lambda _seen: None,
        *,
        sysfs: Path = SYSFS,
        buffer_bytes: int = RECEIVE_BUFFER_BYTES,
    ) -> None:
        self.book = PresenceBook(boards)
        self._on_signs, self._on_observation = on_signs, on_observation
        self._sysfs, self._buffer_bytes = sysfs, buffer_bytes
        self.problems: list[str] = []
        """Why something is not looked at."""
        self._routes: RouteReader | None = None
        self._route_socket: NetlinkSocket | None = None
        self._uevent_socket: NetlinkSocket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._touched: dict[str, int] = {}
        """How often each USB path was told of by uevents that a slower look at sysfs must not overrule."""
        self._rescan = asyncio.Event()
        self.usb_known = asyncio.Event()
        self.routes_known = asyncio.Event()

    async def start(self) -> None:
        """Look from now on. What cannot be looked at here is in `problems` and in the log, and the rest is."""
        await self._start_routes()
        try:
            self._start_uevents()
        except OSError as error:
            self._problem(f"USB devices are not watched: no uevents: {error.strerror}")

    async def _start_routes(self) -> None:
        # pyroute2 takes 0.2 s to import, in which nobody is to wait for us.
        routes = await asyncio.to_thread(importlib.import_module, "agent.presence.routes")
        self._routes = routes.RouteReader()
        self._route_socket = NetlinkSocket(
            NETLINK_ROUTE,
            routes.GROUPS,
            max_bytes=routes.MAX_DATAGRAM_BYTES,
            on_datagram=self._route,
            on_overflow=self._routes_lost,
            buffer_bytes=self._buffer_bytes,
        )
        try:
            self._route_socket.open()
            self._ask_routes()
        except OSError as error:
            self._route_socket.close()
            self._problem(f"links and neighbours are not watched: no rtnetlink: {error.strerror}")

    def _start_uevents(self) -> None:
        self._uevent_socket = NetlinkSocket(
            NETLINK_KOBJECT_UEVENT,
            UEVENT_GROUP,
            max_bytes=uevents.MAX_DATAGRAM_BYTES,
            on_datagram=self._uevent,
            on_overflow=self._rescan.set,
            buffer_bytes=self._buffer_bytes,
        )
        self._uevent_socket.open()
        self._rescan.set()
        self._begin(self._scan_when_asked(), "usb scan")

    def _problem(self, text: str) -> None:
        self.problems.append(text)
        log.warning("presence: %s", text)

    async def stop(self) -> None:
        """Look no more."""
        for found in (self._route_socket, self._uevent_socket):
            if found is not None:
                found.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def follow(self, boards: Mapping[str, BoardMarks]) -> None:
        """Other boards, or other marks, from now on."""
        self._tell(self.book.follow(boards))

    def _tell(self, signs: list[Sign]) -> None:
        if signs:
            self._on_signs(signs)

    # --- links and neighbours ---

    def _route(self, datagram: bytes) -> None:
        reader = self._routes
        if reader is None:
            return
        first = not self.routes_known.is_set()
        for seen in reader.feed(datagram):
            self._on_observation(seen)
            self._tell(self.book.take(seen, first=first))
        if reader.knows_all:
            self.routes_known.set()
        self._ask_routes()

    def _routes_lost(self) -> None:
        if self._routes is not None:
            self._routes.begin()
            self._ask_routes()

    def _ask_routes(self) -> None:
        if self._routes is None or self._route_socket is None:
            return
        request = self._routes.take_request()
        if request is not None:
            self._route_socket.send(request)

    # --- USB ---

    def _uevent(self, datagram: bytes) -> None:
        try:
            seen = uevents.usb_device(uevents.parse(datagram))
        except uevents.UeventError as error:
            log.debug("presence: %s", error)
            return
        if seen is None:
            return
        number = self._touched.get(seen.path, 0) + 1
        self._touched[seen.path] = number
        if seen.present and seen.ids in self.book.wants_serials:
            self._begin(self._read_serial(seen, number), f"usb {seen.path}")
        else:
            self._usb(seen)

    def _usb(self, seen: UsbSeen) -> None:
        self._on_observation(seen)
        self._tell(self.book.take(seen))

    async def _read_serial(self, seen: UsbSeen, number: int) -> None:
        device = await asyncio.to_thread(usb_scan.device, self._sysfs, seen.path)
        if device is not None and self._touched.get(seen.path) == number:
            self._usb(device)

    async def _scan_when_asked(self) -> None:
        """Look at all devices in sysfs, at the start and whenever uevents were lost."""
        while True:
            await self._rescan.wait()
            self._rescan.clear()
            before = dict(self._touched)
            found = await asyncio.to_thread(usb_scan.scan, self._sysfs)
            # What was told of meanwhile is newer than what sysfs showed then.
            newer = {path for path, number in self._touched.items() if before.get(path, 0) != number}
            kept = [seen for seen in self.book.usb_devices if seen.path in newer]
            devices = [*(seen for seen in found if seen.path not in newer), *kept]
            first = not self.usb_known.is_set()
            for seen in devices:
                self._on_observation(seen)
            self._tell(self.book.usb_now(devices, first=first))
            self.usb_known.set()

    def _begin(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("presence: %s failed", task.get_name(), exc_info=fault)
