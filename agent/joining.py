"""Who may join: joining is open for a time, or one stranger is accepted. Requests `joining`, `strangers`,
`accept-board` and `refuse-board`.

An accepted board gets a table in `joined.toml` (agent/joined_boards.py), and is taken up by a reload.
"""

import asyncio
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from agent import joined_boards
from agent.requests import Answer, Handler, RequestError, flag, text
from agent.settings import AgentSettings, BoardTable, contradictions
from agent.strangers import Stranger, StrangerBook, proposed_name
from daemon.settings_file import SettingsError
from wire.ids import is_id, normal_mac
from wire.payloads import ControllerInfo, Registration
from wire.phases import ErrorKind

if TYPE_CHECKING:
    from agent.daemon import Agent

log = logging.getLogger(__name__)

MAX_JOINING_S = 24 * 3600.0
"""Joining left open for ever is a hole; a day is longer than any installation party."""
REFUSED_FACT = "joining_refused"
MOST_REFUSED = 1000
MOST_ADDRESSES_TRIED = 65_536
_SERIAL = re.compile(r"[0-9A-Fa-f]{8,16}")


class JoiningDesk:
    """Joining of one agent."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._book = StrangerBook()
        self._refused: dict[str, None] = {}
        self._ends: asyncio.TimerHandle | None = None
        self._until: datetime | None = None
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Take up who was refused before a restart."""
        self._refused = dict.fromkeys(await self._agent.memory.fact(REFUSED_FACT) or [])

    def apply_refused(self) -> None:
        """Tell netboot, which is up now."""
        if self._agent.netboot.server is not None:
            self._agent.netboot.server.never_join(frozenset(self._refused))

    def handlers(self) -> dict[str, Handler]:
        """What may be asked."""
        return {
            "joining": self._joining,
            "strangers": self._strangers,
            "accept-board": self._accept,
            "refuse-board": self._refuse,
        }

    def refused(self, said: Registration, why: str) -> None:
        """A registration that names no board of ours was refused."""
        self._book.refused(said, why, datetime.now(UTC))

    def said(self, macs: Collection[str]) -> Registration | None:
        """What a stranger with one of these MAC addresses said of itself."""
        return self._book.said(macs)

    # --- joining is open, or not ---

    async def _joining(self, data: dict[str, object]) -> Answer:
        """Open joining for `for_s` seconds, or close it."""
        netboot = self._agent.netboot.server
        if netboot is None:
            raise RequestError(ErrorKind.CONFIGURATION, "this agent has no [netboot] table")
        is_open = flag(data, "open")
        for_s = data.get("for_s", 600)
        if isinstance(for_s, bool) or not isinstance(for_s, int | float) or not 0 < for_s <= MAX_JOINING_S:
            raise RequestError(ErrorKind.BAD_REQUEST, f"for_s: seconds from 0 to {MAX_JOINING_S:g}", "for_s")
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None
        netboot.set_joining(is_open)
        self._until = None
        if is_open:
            self._ends = asyncio.get_running_loop().call_later(for_s, netboot.set_joining, False)
            self._until = datetime.now(UTC) + timedelta(seconds=for_s)
        return {"open": is_open, "until": self._until_text()}

    def _until_text(self) -> str | None:
        return None if self._until is None else self._until.isoformat(timespec="seconds")

    def _is_open(self) -> bool:
        netboot = self._agent.netboot.server
        return netboot is not None and netboot.joining_open

    # --- who was heard ---

    def _found(self) -> list[Stranger]:
        ours = {mac for board in self._agent.settings.boards.values() for mac in board.macs}
        return self._book.all(self._agent.boots.history.strangers(), ours)

    async def _strangers(self, data: dict[str, object]) -> Answer:
        """Everybody who was heard, with a proposed name each. `taken` are names that other agents' boards have."""
        taken = self._taken(data)
        found = []
        for stranger in self._found():
            name = proposed_name(stranger, taken)
            taken = {*taken, name}
            found.append({**stranger.document(), "name": name, "refused": stranger.mac in self._refused})
        controllers = await self._agent.power.describe()
        is_open = self._is_open()
        return {
            "open": is_open,
            "until": self._until_text() if is_open else None,
            "strangers": found,
            "free_outlets": free_outlets(controllers),
        }

    def _taken(self, data: Mapping[str, object]) -> set[str]:
        taken = data.get("taken", [])
        if not isinstance(taken, list) or not all(isinstance(name, str) for name in taken):
            raise RequestError(ErrorKind.BAD_REQUEST, "taken: a list of names is needed", "taken")
        return {*self._agent.settings.boards, *taken}

    # --- one of them ---

    async def _accept(self, data: dict[str, object]) -> Answer:
        """Make a stranger a board: write its table, and take it up."""
        async with self._one_at_a_time:
            stranger = self._stranger(_mac(data))
            taken = self._taken(data)
            name = text(data, "name") if "name" in data else proposed_name(stranger, taken)
            if not is_id(name):
                message = f"{name!r} is not a name: use a-z, 0-9 and '-', at most 63 characters"
                raise RequestError(ErrorKind.BAD_REQUEST, message, "name")
            if name in taken:
                raise RequestError(ErrorKind.BAD_REQUEST, f"there is a board {name} already", "name")
            values = await self._values(stranger, data)
            self._check(name, values)
            await self._store(name, values)
            if stranger.mac in self._refused:
                await self._set_refused(stranger.mac, refused=False)
            log.info("board %s joined: MAC %s, feed %s", name, stranger.mac, values["feed"])
            answer = {"board": name, "settings": values, **await self._take_up(name)}
            self._book.forget(stranger.mac)
            return answer

    def _stranger(self, mac: str) -> Stranger:
        owner = next((name for name, board in self._agent.settings.boards.items() if mac in board.macs), None)
        if owner is not None:
            raise RequestError(ErrorKind.BAD_REQUEST, f"{mac} is board {owner} already", "mac")
        found = self._found()
        stranger = next((one for one in found if one.mac == mac), None)
        if stranger is None:
            heard = ", ".join(one.mac for one in found if one.mac) or "nobody"
            message = f"{mac} was not heard since the agent's start; power it up first. Heard: {heard}"
            raise RequestError(ErrorKind.NOT_FOUND, message[:4096], "mac")
        return stranger

    async def _values(self, stranger: Stranger, data: Mapping[str, object]) -> dict[str, object]:
        """The board's table: what was asked for, and what follows from what it said."""
        settings = self._agent.settings
        feed = data.get("feed")
        if not isinstance(feed, list) or not feed:
            free = ", ".join(free_outlets(await self._agent.power.describe())) or "none"
            message = f"feed: which outlet is it on? Those without a board: {free}; 'boardhand learn' finds out"
            raise RequestError(ErrorKind.BAD_REQUEST, message[:4096], "feed")
        said = stranger.said
        values: dict[str, object] = {"feed": feed}
        values["macs"] = sorted({stranger.mac, *(said.macs if said is not None else ())})
        values |= {key: data[key] for key in ("profile", "address", "labels", "trust_mac") if data.get(key) is not None}
        netboot = settings.netboot
        joins_as = None if netboot is None or values.get("trust_mac") else netboot.joining_profile
        if joins_as is not None:
            values.setdefault("profile", joins_as)
        if "profile" in values and "address" not in values:
            values["address"] = free_address(settings)
        return values | ({} if said is None else self._marks(said))

    def _marks(self, said: Registration) -> dict[str, object]:
        """By what else than its MAC addresses the board can be known."""
        marks: dict[str, object] = {}
        if said.uuid:
            marks["uuid"] = said.uuid
        if said.serial and _SERIAL.fullmatch(said.serial) and self._is_new(said.serial):
            marks["serial"] = said.serial
        return marks

    def tables(self, boards: Iterable[Collection[str]]) -> list[dict[str, object]]:
        """What boards with these MAC addresses need in their tables to boot as they did when they registered as
        strangers: `profile`, `address`, `uuid`, `serial`. Empty for who did not register, and who is a board already.
        """
        settings, given = self._agent.settings, set[str]()
        found: list[dict[str, object]] = []
        ours = {mac for board in settings.boards.values() for mac in board.macs}
        joins_as = None if settings.netboot is None else settings.netboot.joining_profile
        for macs in boards:
            said = self.said(macs)
            address = free_address(settings, given) if joins_as is not None else None
            if said is None or address is None or ours & set(macs):
                found.append({})
                continue
            given.add(address)
            found.append({"profile": joins_as, "address": address, **self._marks(said)})
        return found

    def _is_new(self, serial: str) -> bool:
        known = {(board.serial or "")[-8:].lower() for board in self._agent.settings.boards.values()}
        return serial[-8:].lower() not in known

    def _check(self, name: str, values: Mapping[str, object]) -> None:
        try:
            problem = joined_boards.check(
                self._agent.settings, name, joined_boards.board(BoardTable, name, values), contradictions
            )
        except ValueError as error:
            problem = str(error)
        if problem is not None:
            key = problem.partition(":")[0]
            raise RequestError(ErrorKind.BAD_REQUEST, problem[:4096], key[:256])

    async def _store(self, name: str, values: dict[str, object]) -> None:
        state_dir = self._agent.settings.agent.state_dir
        try:
            tables = await asyncio.to_thread(joined_boards.read, state_dir)
            await asyncio.to_thread(joined_boards.write, state_dir, {**tables, name: values})
        except (SettingsError, OSError) as error:
            raise RequestError(ErrorKind.CONFIGURATION, f"board {name} is not stored: {error}"[:4096]) from error

    async def _take_up(self, name: str) -> Answer:
        """`live`: it is one of our boards now, else what to do. Changes that need a restart wait for it."""
        try:
            await self._agent.reloading.reload(partial=True)
        except RequestError as error:
            return {"live": False, "do": f"mend the settings and reload the agent: {error}"[:1024]}
        live = name in self._agent.settings.boards
        return {"live": live, "do": f"cycle its power: boardhand power {name} cycle" if live else "see the agent's log"}

    async def _refuse(self, data: dict[str, object]) -> Answer:
        """Never let a stranger join, also while joining is open; `undo` takes that back."""
        mac, undo = _mac(data), data.get("undo", False)
        if not isinstance(undo, bool):
            raise RequestError(ErrorKind.BAD_REQUEST, "undo: true or false is needed", "undo")
        await self._set_refused(mac, refused=not undo)
        return {"mac": mac, "refused": not undo}

    async def _set_refused(self, mac: str, *, refused: bool) -> None:
        self._refused.pop(mac, None)
        if refused:
            self._refused[mac] = None
        self._refused = dict.fromkeys(list(self._refused)[-MOST_REFUSED:])
        self.apply_refused()
        await self._agent.memory.remember(REFUSED_FACT, list(self._refused))


def _mac(data: Mapping[str, object]) -> str:
    try:
        return normal_mac(text(data, "mac"))
    except ValueError as error:
        raise RequestError(ErrorKind.BAD_REQUEST, str(error)[:4096], "mac") from None


def free_outlets(controllers: Collection[ControllerInfo]) -> list[str]:
    """`controller:outlet` of those that feed no board."""
    return [
        f"{controller.name}:{outlet.outlet}"
        for controller in controllers
        for outlet in controller.outlets
        if outlet.board is None
    ]


def free_address(settings: AgentSettings, given: Collection[str] = ()) -> str | None:
    """The first address of the board network that nobody has, outside the pool; None where there is none.

    `given` are those that somebody is about to have.
    """
    netboot = settings.netboot
    if netboot is None:
        return None
    taken: set[IPv4Address] = {board.address for board in settings.boards.values() if board.address is not None}
    taken |= {netboot.address.ip, *map(IPv4Address, given)}
    first, last = netboot.pool or (IPv4Address(1), IPv4Address(0))
    for number, address in enumerate(netboot.address.network.hosts()):
        if number >= MOST_ADDRESSES_TRIED:
            return None
        if address not in taken and not first <= address <= last:
            return str(address)
    return None
