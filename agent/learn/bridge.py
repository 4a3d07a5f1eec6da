"""The hands and ears of `learn` in a real agent."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard
from urllib.parse import urlsplit

from agent.learn.desk import FOUND_FACT, LearnDesk
from agent.learn.ears import Ears
from agent.learn.moved_cables import MovedCables
from agent.learn.outlets import Choice, choose
from agent.learn.signs import Event, Kind, Linked, Present, Sign, Subject
from agent.outbox import NewEvent
from agent.power.errors import PowerError
from agent.power.feed import OutletRef
from agent.presence.observations import LinkSeen, Observation, UsbSeen
from agent.requests import RequestError
from agent.unit import Effects
from netboot.events import DhcpSeen, FileRequested, FileSent, NetbootEvent
from udev.serial_ports import serial_ports
from wire.payloads import Alert, Registration
from wire.phases import ErrorKind, EventType, Power, PowerAction

if TYPE_CHECKING:
    from agent.daemon import Agent
    from agent.settings import AgentSettings

log = logging.getLogger(__name__)

CABLING_ALERT = "cabling"
ReadWatts = Callable[[OutletRef], Awaitable[float | None]]


class AgentHands:
    """What `Hands` asks for, of `agent`. `read_watts` reads one outlet's meter; None without one."""

    def __init__(self, agent: "Agent", read_watts: ReadWatts) -> None:
        self._agent = agent
        self._read_watts = read_watts
        self._ears: Ears | None = None
        self._on_event: Callable[[Event], None] | None = None
        self._mac_of: dict[str, str] = {}
        """Of clients that have an address."""
        self._spoke: set[str] = set()
        """MACs that were heard by their own packets."""
        self._joining_opened = False

    # --- power -----------------------------------------------------------------------------------------------

    async def choose(self, only: list[str], *, also_on: bool) -> Choice:
        """See `Hands`."""
        controllers = await self._agent.power.describe()
        if self._agent.reloading.under_way:
            raise RequestError(ErrorKind.BUSY, "the settings are being read again; ask once more in a moment")
        return choose(self._agent.settings, controllers, only=only, also_on=also_on)

    async def switch(self, outlet: str, *, on: bool, operation_id: str) -> str | None:
        """See `Hands`."""
        action = PowerAction.ON if on else PowerAction.OFF
        ref = OutletRef.parse(outlet)
        outcome = await self._agent.power.switch_outlet(ref, action, operation_id=operation_id, min_off_s=0.0)
        return None if outcome.error is None else outcome.error.message

    async def watts(self, outlet: str) -> float | None:
        """See `Hands`."""
        try:
            return await self._read_watts(OutletRef.parse(outlet))
        except (KeyError, PowerError):
            return None

    async def recall(self) -> dict[str, bool]:
        """See `Hands`."""
        stored = await self._agent.memory.fact(FOUND_FACT)
        return {str(outlet): bool(on) for outlet, on in stored.items()} if isinstance(stored, dict) else {}

    async def remember(self, found: Mapping[str, bool]) -> None:
        """See `Hands`."""
        await self._agent.memory.remember(FOUND_FACT, dict(found))

    # --- ears ------------------------------------------------------------------------------------------------

    async def open_ears(self, on_event: Callable[[Event], None], consoles: list[str]) -> None:
        """See `Hands`."""
        self._on_event = on_event
        self._spoke.clear()
        self._ears = Ears(on_event)
        self._ears.listen(consoles)
        await self.look()
        presence = getattr(self._agent, "presence", None)
        if presence is not None:
            presence.listeners.append(self.observed)
        server, table = self._agent.netboot.server, self._agent.settings.netboot
        if server is not None and table is not None and table.joining_profile is not None and table.joining != "open":
            # A board that boots the joining profile says its name, its MACs and that it is up.
            server.set_joining(True)
            self._joining_opened = True

    async def look(self) -> None:
        """See `Hands`."""
        if self._ears is not None:
            ports = await asyncio.to_thread(_free_ports, self._own_places())
            self._ears.listen(ports)

    def _own_places(self) -> set[str]:
        boards = self._agent.settings.boards.values()
        return {str(board.console.device) for board in boards if board.console is not None}

    def tables(self, boards: Sequence[Sequence[str]]) -> list[dict[str, object]]:
        """See `Hands`."""
        return self._agent.joining.tables(boards)

    async def close_ears(self) -> None:
        """See `Hands`."""
        self._on_event = None
        presence = getattr(self._agent, "presence", None)
        if presence is not None and self.observed in presence.listeners:
            presence.listeners.remove(self.observed)
        if self._joining_opened and self._agent.netboot.server is not None:
            self._agent.netboot.server.set_joining(False)
            self._joining_opened = False
        ears, self._ears = self._ears, None
        if ears is not None:
            await ears.close()

    def netboot(self, event: NetbootEvent) -> None:
        """DHCP, TFTP or HTTP of somebody: what no board of ours says."""
        if self._on_event is None or event.board is not None:
            return
        if isinstance(event, DhcpSeen):
            if event.address is not None:
                self._mac_of[event.address] = event.mac
            self._spoke.add(event.mac.lower())
            self._on_event(Sign(_mac(event.mac), words=event.vendor_class[:60]))
        elif _says_it_lives(event) and (mac := self._mac_of.get(event.client)):
            self._on_event(Sign(_mac(mac), words=f"fetches {event.path}"[:60]))

    def registered(self, said: Registration) -> None:
        """Somebody whom we do not know registers: it is up."""
        if self._on_event is None:
            return
        self._spoke.update(mac.lower() for mac in (said.mac, *said.macs))
        model = f", {said.compatible[0]}" if said.compatible else ""
        self._on_event(Sign(_mac(said.mac), ready=True, words=f"registers{model}"))
        for other in said.macs:
            self._on_event(Linked(_mac(said.mac), _mac(other)))

    def observed(self, seen: Observation) -> None:
        """Presence saw a link, a neighbour or a USB device."""
        if self._on_event is None:
            return
        if isinstance(seen, UsbSeen):
            self._on_event(Present(Subject(Kind.USB, seen.path), here=seen.present, words=seen.product))
        elif isinstance(seen, LinkSeen):
            self._on_event(Present(Subject(Kind.LINK, seen.interface), here=seen.up))
        elif seen.answers and not self._is_ours(seen.mac) and seen.address not in _hosts(self._agent.settings):
            # Where a bridge saw its frames there is no address. An entry with one may say "reachable" up to 5 s after
            # the last packet (delay_first_probe_time, arp(7)): a board would be heard that has no power any more.
            if not seen.address:
                self._spoke.add(seen.mac.lower())
            elif seen.mac.lower() in self._spoke:
                return
            self._on_event(Sign(_mac(seen.mac), words=seen.address))

    def _is_ours(self, mac: str) -> bool:
        return any(mac in board.macs for board in self._agent.settings.boards.values())


def desk(agent: "Agent", read_watts: ReadWatts) -> tuple[LearnDesk, AgentHands]:
    """The desk of `agent`, and where it wants to be told what is heard."""
    hands = AgentHands(agent, read_watts)
    return LearnDesk(hands), hands


def _hosts(settings: "AgentSettings") -> set[str]:
    """Addresses of controllers: what we ask all the time answers all the time, and feeds nothing."""
    tables = settings.controllers.values()
    urls = (urlsplit(str(getattr(table, "url", None) or "")).hostname or "" for table in tables)
    return {*urls, *(str(getattr(table, "host", None) or "") for table in tables)} - {""}


def _says_it_lives(event: NetbootEvent) -> TypeGuard[FileRequested | FileSent]:
    """Whether the client has just said something. A file whose last block was repeated may count as sent 6 s after the
    last packet (some boot ROMs never acknowledge it): by then the board may have lost its power."""
    return isinstance(event, FileRequested) or (isinstance(event, FileSent) and not event.resent)


def _mac(text: str) -> Subject:
    return Subject(Kind.MAC, text.lower())


def _free_ports(taken: set[str]) -> list[str]:
    """Ports of USB adapters that no console of the settings has. The host's own UARTs are left alone: one may be the
    host's console."""
    try:
        ports = serial_ports()
    except OSError as error:
        log.warning("learn: serial ports cannot be listed: %s", error)
        return []
    held = {str(Path(place).resolve()) for place in taken if place.startswith("/")}
    return [port.node for port in ports if port.usb is not None and port.node not in held]


class CableWatch:
    """Says of the boards of `agent` whose cables were moved, as their alert `cabling`."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._moved = MovedCables()

    def power(self, board: str, power: Power) -> None:
        """The board's power was read back."""
        table = self._agent.settings.boards.get(board)
        if table is None:
            self._moved.forget(board)
        else:
            self._moved.power(board, ", ".join(table.outlets), power, time.monotonic())

    def heard(self, board: str, how: str) -> None:
        """The board was heard: `how` in words."""
        effects = Effects()
        for moved in self._moved.heard(board, how, time.monotonic()):
            alert = None if moved.over else Alert(what=moved.what, since=datetime.now(UTC), do=moved.do)
            effects.alerts.append((moved.board, CABLING_ALERT, alert))
            details: dict[str, object] = {"name": CABLING_ALERT, "cleared": True}
            if alert is not None:
                details = {"name": CABLING_ALERT, "what": alert.what}
            effects.events.append(NewEvent(moved.board, EventType.ALERT, details))
        self._agent.submit_if_any(effects)
