"""Where the cables of a cabled farm lie: PDUs with boards on their outlets, serial ports with consoles at their ends,
and somebody who moves plugs.

Runs in the light boards' process. The socket `FarmPlan.cable_socket` takes one JSON object per line, each answered by
one line: `{"do": "press", "outlet": "rack:3", "on": true}` is a hand at a button, `{"do": "swap", "outlets": ["rack:3",
"strip:1"]}` has two plugs change places, `{"do": "swap-consoles", "ports": ["port-1", "port-2"]}` two console cables,
and `{"do": "state"}` tells what is on and how often each outlet has switched.
"""

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from agent.power.drivers.qmp import OUTLET, QmpDriver
from agent.power.errors import PowerError
from agent.power.kinds.qmp import QmpSettings
from virtual_lab.cabling import Cabling, ControllerPlan, Kind
from virtual_lab.farm_plan import PDU_COMMUNITY, FarmPlan
from virtual_lab.lab_tools import check_socket_path, remove_stale_socket
from virtual_lab.network import BRIDGE_ADDRESS
from virtual_lab.patch_panel import PatchPanel
from virtual_lab.plug_server import PlugServer
from virtual_lab.snmp_pdu_device import PduSettings, VirtualPdu

log = logging.getLogger(__name__)

QEMU_W = 7
"""What a QEMU board is said to draw; a light one knows it of itself."""
RETRY_S = 0.2
_MAX_LINE_BYTES = 64 * 1024


class Machine(Protocol):
    """What hangs on outlets."""

    @property
    def watts(self) -> int:
        """What it draws while it has power."""

    async def feed(self, *, on: bool) -> None:
        """Its mains come or go.

        Raises:
            OSError: not now; try again.
        """


class QemuMains:
    """A QEMU board's power, by QMP as the agent's driver has it."""

    watts = QEMU_W

    def __init__(self, socket: Path) -> None:
        self._driver = QmpDriver("mains", QmpSettings(driver="qmp", socket=socket))

    async def feed(self, *, on: bool) -> None:
        """See `Machine`."""
        try:
            await self._driver.set(OUTLET, on)
        except PowerError as error:
            raise OSError(str(error)) from error


class CableRoom:
    """Plugs in outlets. A board has power while any of its outlets has."""

    def __init__(self, feeds: Mapping[str, list[str]], machines: Mapping[str, Machine]) -> None:
        """`feeds`: board -> outlets. `machines`: board -> what is switched."""
        self._feeds = {board: list(outlets) for board, outlets in feeds.items()}
        self._machines = machines
        self._on: set[str] = set()
        self.edges: Counter[str] = Counter()
        """How often each outlet has switched."""
        self._changed = {board: asyncio.Event() for board in feeds}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._follow(board), name=f"mains of {board}") for board in self._feeds]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def switched(self, outlet: str, *, on: bool) -> None:
        """An outlet has really switched."""
        log.info("outlet %s %s", outlet, "on" if on else "off")
        self.edges[outlet] += 1
        (self._on.add if on else self._on.discard)(outlet)
        self._look()

    def watts(self, outlet: str) -> int:
        """What is drawn from the outlet. Two outlets of one board share its load."""
        total = 0.0
        for board, outlets in self._feeds.items():
            if outlet in outlets and outlet in self._on:
                total += self._machines[board].watts / len(self._on.intersection(outlets))
        return round(total)

    def swap(self, one: str, other: str) -> None:
        """The plugs in two outlets change places; an empty outlet has none.

        Raises:
            ValueError: nothing is plugged in there.
        """
        places = {one: other, other: one}
        if not any(outlet in places for outlets in self._feeds.values() for outlet in outlets):
            raise ValueError(f"nothing hangs on {one} or {other}")
        for board, outlets in self._feeds.items():
            self._feeds[board] = [places.get(outlet, outlet) for outlet in outlets]
        self._look()

    @property
    def on(self) -> list[str]:
        """The outlets that are on."""
        return sorted(self._on)

    def _look(self) -> None:
        for event in self._changed.values():
            event.set()

    async def _follow(self, board: str) -> None:
        has_power = False
        while True:
            await self._changed[board].wait()
            self._changed[board].clear()
            wanted = not self._on.isdisjoint(self._feeds[board])
            if wanted == has_power:
                continue
            try:
                await self._machines[board].feed(on=wanted)
                has_power = wanted
            except OSError as error:
                log.warning("%s: %s; once more", board, error)
                await asyncio.sleep(RETRY_S)
                self._changed[board].set()


@dataclass
class RackPdu(VirtualPdu):
    """A PDU whose outlets read what hangs on them."""

    controller: str = ""
    room: CableRoom | None = None

    def watts(self, outlet: str) -> int:
        return 0 if self.room is None else self.room.watts(f"{self.controller}:{outlet}")

    async def switch(self, outlet: str, on: bool) -> None:  # noqa: FBT001  # as Driver.set
        """The hook."""
        if self.room is not None:
            self.room.switched(f"{self.controller}:{outlet}", on=on)


@dataclass
class Strip(PlugServer):
    """A strip that is switched over HTTP, and reads what hangs on its outlets."""

    controller: str = ""
    room: CableRoom | None = None

    def watts(self, outlet: str) -> float:
        return 0.0 if self.room is None else float(self.room.watts(f"{self.controller}:{outlet}"))


def _pdu(plan: ControllerPlan, room: CableRoom) -> RackPdu:
    settings = PduSettings(
        host=BRIDGE_ADDRESS,
        port=plan.port,
        outlets=plan.outlets,
        model=plan.model,
        write_community=PDU_COMMUNITY,
        light=True,
    )
    pdu = RackPdu(settings, controller=plan.name, room=room)
    pdu.hook = pdu.switch
    return pdu


def _strip(plan: ControllerPlan, room: CableRoom) -> Strip:
    def switched(outlet: str, on: bool) -> None:  # noqa: FBT001  # as Driver.set
        room.switched(f"{plan.name}:{outlet}", on=on)

    return Strip(
        outlets=plan.outlets,
        host=BRIDGE_ADDRESS,
        port=plan.port,
        metered=plan.metered,
        hook=switched,
        controller=plan.name,
        room=room,
    )


class Hand:
    """Somebody in the room, told what to do over a socket."""

    def __init__(self, path: Path, room: CableRoom, panel: PatchPanel, controllers: Mapping[str, Any]) -> None:
        """`controllers`: by name, each with `press`."""
        self._path = check_socket_path(path)
        self._room, self._panel, self._controllers = room, panel, controllers

    async def serve(self, stack: AsyncExitStack) -> None:
        """Listen, to end with `stack`.

        Raises:
            OSError: the socket cannot be made.
        """
        remove_stale_socket(self._path)
        server = await asyncio.start_unix_server(self._serve, self._path, limit=_MAX_LINE_BYTES)
        stack.callback(self._path.unlink, missing_ok=True)
        stack.callback(server.close)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.closing(writer):
            while line := await reader.readline():
                writer.write(json.dumps(self.carry_out(line)).encode() + b"\n")
                await writer.drain()

    def carry_out(self, line: bytes) -> dict[str, Any]:
        """One line; a bad one is answered with `error`, never raised."""
        try:
            asked = json.loads(line)
            match asked["do"]:
                case "press":
                    name, _, outlet = asked["outlet"].partition(":")
                    self._controllers[name].press(outlet, on=bool(asked["on"]))
                case "swap":
                    self._room.swap(*asked["outlets"])
                case "swap-consoles":
                    self._panel.swap(*asked["ports"])
                case "state":
                    pass
                case word:
                    return {"ok": False, "error": f"unknown word {word!r}"}
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            return {"ok": False, "error": f"{type(problem).__name__}: {problem}"}
        return {"ok": True, "on": self._room.on, "edges": dict(self._room.edges)}


async def serve(
    plan: FarmPlan, cabling: Cabling, lights: Mapping[str, Machine], panel: PatchPanel, stack: AsyncExitStack
) -> None:
    """Start the room of `plan`, to end with `stack`. `lights` are the light boards by name.

    Raises:
        OSError: something cannot listen.
    """
    machines = dict(lights) | {board.board: QemuMains(plan.qemu_spec(board).qmp_socket) for board in plan.boards}
    room = await stack.enter_async_context(CableRoom(cabling.feeds, machines))
    controllers: dict[str, RackPdu | Strip] = {}
    for controller in cabling.controllers:
        made = _pdu(controller, room) if controller.kind is Kind.SNMP else _strip(controller, room)
        controllers[controller.name] = await stack.enter_async_context(made)
    for board in plan.boards:
        panel.plug_socket(board.board, plan.qemu_spec(board).console_socket)
    for port in cabling.consoles:
        await panel.open_port(port, plan.port_socket(port))
    stack.push_async_callback(panel.close)
    await Hand(plan.cable_socket, room, panel, controllers).serve(stack)
