"""Other settings for an agent that runs: read, compared, and taken up without disturbing what is the same.

Order of work: everything that may fail comes first and is undone when a later part fails, so that a reload is done
whole or not at all. What was asked for and cannot be done is told to whoever asked, and in the log.
"""

import asyncio
import gc
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent import board_info, bootloader_bridge, metering
from agent.boot_file_settings import OwnBootFiles
from agent.console.settings import ConsoleTable
from agent.errors import AgentError
from agent.power.changing import PowerSettings, PreparedPower
from agent.power.errors import PowerError
from agent.requests import Answer, RequestError, flag
from agent.settings import AgentSettings, BoardTable, contradictions, load
from agent.settings_diff import Change, apply, diff, touched
from agent.unit import BoardPlan, Effects
from daemon.service_notify import ServiceNotify
from daemon.settings_file import SettingsError
from wire.payloads import encode
from wire.phases import ErrorKind, Phase, Power

if TYPE_CHECKING:
    from agent.daemon import Agent

log = logging.getLogger(__name__)

POWER_WAIT_S = 60.0
"""For power commands under way on what is changed: a cycle with a long rest takes 30 s."""
HANDS_KEYS = frozenset(
    {"feed", "feed_is", "never_off", "min_off_s", "console", "bootloader", "client"}
    | {"actuators", "modes", "flash", "profile", "address"}
)
"""Keys of a board that an action of it goes by: they are not changed in its middle."""
NETBOOT_KEYS = frozenset(OwnBootFiles.model_fields) | {
    *("macs", "address", "address6", "profile", "dtb", "uuid", "serial", "labgrid_folder")
}
"""Keys of a board that netboot goes by."""
STEP_BOARDS = 50
"""So many boards at a time without letting anybody else have the event loop."""


def plans(settings: AgentSettings) -> dict[str, BoardPlan]:
    """What the shelf needs to know of each board."""
    return {
        # A board that must never go off is not cycled for being late, either.
        name: BoardPlan(
            board.boot_timeout_s if board.registers else None,
            0 if board.never_off else board.boot_retries,
            board.on_change,
        )
        for name, board in settings.boards.items()
    }


def power_settings(settings: AgentSettings) -> PowerSettings:
    """What the power service needs to know."""
    return PowerSettings(
        settings.controllers,
        settings.feeds(),
        {name: circuit.inrush_spacing_s for name, circuit in settings.circuits.items()},
        settings.agent.read_back_s,
    )


def stood_in_for(settings: AgentSettings) -> list[str]:
    """The boards whose jobs we work on their consoles."""
    return [name for name, board in settings.boards.items() if board.client == "console"]


class Reloading:
    """Reloads of one agent, one after the other."""

    def __init__(self, agent: "Agent", path: Path | None) -> None:
        """`path` is the settings file; None: the agent was not started from one."""
        self._agent = agent
        self._path = path
        self._one_at_a_time = asyncio.Lock()
        self._asked = asyncio.Event()
        self._service = ServiceNotify.from_environment(os.environ, os.getpid())

    def ask(self) -> None:
        """Reload soon: SIGHUP. One that comes before the agent is up, or during a reload, is not lost."""
        self._asked.set()

    @property
    def under_way(self) -> bool:
        """Settings are being read and taken up; what goes by them may be another in a moment."""
        return self._one_at_a_time.locked()

    async def run(self) -> None:
        """Reload when asked by signal, until cancelled."""
        # What stands now lives as long as we do. A collection that looks through it takes 100 ms with 500 boards, and
        # a reload makes enough objects to bring one about.
        gc.freeze()
        while True:
            await self._asked.wait()
            self._asked.clear()
            # systemd's Type=notify-reload waits for READY=1 after these (sd_notify(3)).
            self._service.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")
            try:
                await self.reload()
            except RequestError:
                pass  # the log has it
            except Exception:  # half of a reload is a fault of ours; boards that are served well must not end for it
                log.exception("a reload failed halfway: restart the agent")
            finally:
                self._service.ready()

    async def answer(self, data: dict[str, object]) -> Answer:
        """The request `reload`: `{"partial": bool, "check": bool}`, both false if not given.

        Raises:
            RequestError: as `reload`.
        """
        partial, check = (flag({key: False} | data, key) for key in ("partial", "check"))
        return await self.reload(partial=partial, check=check)

    async def reload(self, *, partial: bool = False, check: bool = False) -> Answer:
        """Read the settings file again and take up what is different. `partial` passes over what only a restart takes
        up, which otherwise holds up everything: settings of which half counts are worse than old ones. `check` changes
        nothing and tells what would be.

        Raises:
            RequestError: nothing was changed; says which file, line and key are at fault, what needs a restart, or what
                is under way.
        """
        async with self._one_at_a_time:
            began = time.monotonic()
            try:
                answer = await self._reload(partial=partial, check=check)
            except RequestError as error:
                log.error("settings not reloaded; the old ones go on: %s", error)  # noqa: TRY400  # no fault of ours
                raise
            answer["took_ms"] = round((time.monotonic() - began) * 1000, 1)
        if not check:
            log.info("settings reloaded in %s ms: %s", answer["took_ms"], _summary(answer))
        return answer

    async def _reload(self, *, partial: bool, check: bool) -> Answer:
        agent, path = self._agent, self._path
        if path is None:
            raise RequestError(ErrorKind.CONFIGURATION, "this agent was not started from a settings file")
        try:
            read = await asyncio.to_thread(load, path)
        except SettingsError as error:
            raise RequestError(ErrorKind.CONFIGURATION, str(error)[:4096]) from error
        found = diff(agent.settings, read)
        await asyncio.sleep(0)
        late = [change for change in found if change.restart is not None]
        live = [change for change in found if change.restart is None]
        if late and not (partial or check):
            keys = "; ".join(f"{change.name} ({change.restart})" for change in late)
            message = f"{path}: only a restart takes up {keys}. Restart the agent, or reload with partial"
            raise RequestError(ErrorKind.REFUSED, message[:4096], late[0].name[:256])
        wanted = apply(agent.settings, live) if late else read
        for key, problem in contradictions(wanted) if late else ():
            message = f"{path}: without what needs a restart: {'.'.join(key)}: {problem}"
            raise RequestError(ErrorKind.CONFIGURATION, message[:4096], ".".join(key)[:256])
        if live and not check:
            await _TakingUp(agent, wanted, live).run()
        return {
            "changes": [{"key": change.name, "what": change.what} for change in live],
            "restart": [{"key": change.name, "why": change.restart} for change in late],
            "boards": _boards(live),
        }


class _TakingUp:
    """One set of settings, taken up by every desk of the agent."""

    def __init__(self, agent: "Agent", wanted: AgentSettings, changes: Sequence[Change]) -> None:
        self._agent = agent
        self._old, self._wanted = agent.settings, wanted
        self._changes = changes
        self._touched = touched(changes, "boards")
        self._gone = [name for name in self._old.boards if name not in wanted.boards]

    async def run(self) -> None:
        """Take all of it up.

        Raises:
            RequestError: nothing was changed, and why.
        """
        self._check_free()
        self._check_learning()
        # What is waited for below takes up to a minute: no action may begin meanwhile on what is about to be another.
        with self._agent.actions.closed(
            [name for name, board in self._old.boards.items() if self._turned(name, board)]
        ):
            await self._take_up()

    async def _take_up(self) -> None:
        agent, wanted = self._agent, self._wanted
        try:
            prepared = agent.power.prepare(power_settings(wanted))
        except PowerError as error:
            raise RequestError(ErrorKind.CONFIGURATION, str(error)[:4096]) from error
        await asyncio.sleep(0)
        try:
            await self._what_may_fail(prepared)
        except BaseException:
            await prepared.abandon()
            raise
        new = self._at_once()
        await asyncio.sleep(0)
        try:
            await self._then(new)
        except sqlite3.Error as error:
            where = agent.settings.agent.state_dir
            message = f"{where}: cannot be read or written ({error}); mend the disk and restart the agent"
            raise RequestError(ErrorKind.INTERNAL, message) from error

    def _check_learning(self) -> None:
        """Raises `RequestError` where learn tries an outlet that would be another's, or of another controller."""
        tried = self._agent.learning.outlets
        if not tried:
            return
        message = "learning is under way on it; wait for its end, or stop it with 'boardhand learn --stop'"
        for name in touched(self._changes, "controllers"):
            if any(outlet.partition(":")[0] == name for outlet in tried):
                raise RequestError(ErrorKind.BUSY, f"controller {name}: {message}", f"controllers.{name}")
        for name in self._touched:
            board = self._wanted.boards.get(name)
            if board is not None and not tried.isdisjoint([*board.outlets, *_loose(board)]):
                raise RequestError(ErrorKind.BUSY, f"board {name}: its outlet: {message}", f"boards.{name}")
        if any(change.key[0] == "netboot" for change in self._changes):
            raise RequestError(ErrorKind.BUSY, f"netboot: {message}", "netboot")

    def _check_free(self) -> None:
        """Raises `RequestError` where something is in the middle of what would be another."""
        for name, board in self._old.boards.items():
            what = self._under_way(name)
            if what is not None and self._turned(name, board):
                message = f"board {name}: {what}, and its settings are others; wait for it, or cancel it"
                raise RequestError(ErrorKind.BUSY, message, f"boards.{name}")
            if board.client == "console" and self._has_job(name) and (name in self._gone or self._typed_to(name)):
                message = (
                    f"board {name}: a job is under way on its console, which is another; wait for it, or cancel it"
                )
                raise RequestError(ErrorKind.BUSY, message, f"boards.{name}")

    def _under_way(self, name: str) -> str | None:
        agent = self._agent
        if name in agent.modes.recovering:
            return "it is being put back after what the agent's last end cut short"
        verb = agent.actions.under_way(name)
        return None if verb is None else f"{verb} is under way"

    def _turned(self, name: str, board: BoardTable) -> bool:
        """Whether what an action of the board goes by is another: the board's own keys, or a controller it uses."""
        if name in self._gone or not HANDS_KEYS.isdisjoint(self._touched.get(name, ())):
            return True
        controllers = touched(self._changes, "controllers")
        loose = [table.outlet for table in board.actuators.values() if table.outlet is not None]
        return any(place.partition(":")[0] in controllers for place in (*board.outlets, *loose))

    def _has_job(self, name: str) -> bool:
        return self._agent.shelf.unit(name).life.phase is Phase.BUSY

    def _typed_to(self, name: str) -> bool:
        """Whether who types on the board's console has to begin anew."""
        return not {"console", "client"}.isdisjoint(self._touched.get(name, ()))

    def _turns_netboot(self) -> bool:
        """Netboot's tables are made anew as a whole, which takes its milliseconds."""
        tables = {change.key[0] for change in self._changes} & {"netboot", "profiles"}
        return bool(tables) or any(not keys or keys & NETBOOT_KEYS for keys in self._touched.values())

    async def _what_may_fail(self, prepared: PreparedPower) -> None:
        agent, old, wanted = self._agent, self._old, self._wanted
        undo: list[AgentSettings] = []
        units = {name: agent.shelf.unit(name) for name, keys in self._touched.items() if "feed" in keys}
        targets = {name: unit.target for name, unit in units.items()}
        try:
            if self._turns_netboot():
                agent.netboot.follow(wanted)
            undo.append(old)
            await asyncio.sleep(0)  # with hundreds of boards each step takes its milliseconds
            if any("console" in keys or not keys for keys in self._touched.values()):
                await agent.consoles.follow(_consoles(wanted))
            for unit in units.values():
                unit.target = None  # what was asked of other outlets is nothing to enforce on these
            await agent.power.follow(prepared, within_s=POWER_WAIT_S)
        except (ValueError, AgentError, TimeoutError) as error:
            for name, unit in units.items():
                unit.target = targets[name]
            if undo:
                agent.netboot.follow(old)
                await agent.consoles.follow(_consoles(old))
            if isinstance(error, TimeoutError):
                message = f"a power command is under way for more than {POWER_WAIT_S:g} s on what is another now"
                raise RequestError(ErrorKind.BUSY, message) from error
            raise RequestError(ErrorKind.CONFIGURATION, str(error)[:4096]) from error

    def _at_once(self) -> list[str]:
        """What neither fails nor waits; returns the new boards."""
        agent, wanted = self._agent, self._wanted
        agent.settings = wanted
        agent.hooks.follow(wanted.hooks)
        agent.commands.follow(force_allowed=wanted.agent.force_allowed, gone=self._gone)
        agent.flashes.follow(wanted.boards)
        if agent.pdu_listener is not None:
            agent.pdu_listener.follow(wanted.controllers, wanted.feeds())
        new = agent.shelf.follow(plans(wanted), agent.moment())
        for name in self._gone:
            agent.infos.pop(name)
            agent.words.forget(name)
            topics = [agent.topics.board_state(name), agent.topics.board_info(name)]
            agent.voice.forget_board(topics, agent.topics.alert(name, "x").removesuffix("x"))
        for name in self._touched.keys() - set(self._gone):
            info = agent.infos[name] = agent.words.known(name, board_info.of(wanted, name), wanted)
            agent.voice.retain(agent.topics.board_info(name), encode(info))
        return new

    async def _then(self, new: Iterable[str]) -> None:
        agent, wanted, boards = self._agent, self._wanted, self._touched
        await self._restore(new)
        keys = {"actuators", "modes"}
        await agent.modes.follow(wanted.boards, [name for name, on in boards.items() if not on or on & keys])
        keys = {"bootloader", "console"}
        spoken = [name for name, on in boards.items() if not on or on & keys]
        await agent.bootloaders.follow(bootloader_bridge.tables(wanted), spoken)
        if agent.energy is not None:
            await agent.energy.follow(metering.plates(wanted))
        consoles = [name for name, on in boards.items() if not on or "console" in on]
        await agent.console_steps.follow(stood_in_for(wanted), consoles)
        await agent.inbox.follow(wanted, agent.link)
        agent.names.changed()
        agent.presence.follow(wanted)
        agent.begin(agent.tell_info(), "info")

    async def _restore(self, new: Iterable[str]) -> None:
        """New boards begin as at a start: what was stored of them in earlier days, corrected by the hardware."""
        agent, effects = self._agent, Effects()
        stored, numbers = await agent.memory.boards(), await agent.outbox.sequence_numbers()
        for count, board in enumerate(new, start=1):
            power = agent.power.last(board)
            agent.shelf.unit(board).seq = numbers.get(board, 0)
            agent.boots.power(board, power)
            agent.consoles.power(board, power)
            agent.cables.power(board, power)
            effects.add(agent.shelf.restore(board, stored.get(board), power, agent.moment()))
            if power is Power.OFF:
                agent.netboot.new_boot(board)
            if count % STEP_BOARDS == 0:
                await asyncio.sleep(0)
        await agent.apply(effects)


def _loose(board: BoardTable) -> list[str]:
    """Outlets that the board's modes switch."""
    return [str(table.outlet) for table in board.actuators.values() if table.outlet is not None]


def _consoles(settings: AgentSettings) -> dict[str, ConsoleTable | None]:
    return {name: board.console for name, board in settings.boards.items()}


def _boards(changes: Iterable[Change]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
    for change in changes:
        if change.key[0] == "boards" and change.key[1] not in found[change.what]:
            found[change.what].append(change.key[1])
    return found


def _summary(answer: Answer) -> str:
    changes, restart = answer["changes"], answer["restart"]
    if not isinstance(changes, list) or not isinstance(restart, list):
        return ""
    told = ", ".join(f"{change['key']} {change['what']}" for change in changes[:20]) or "nothing is different"
    more = f" and {len(changes) - 20} more" if len(changes) > 20 else ""
    late = "; a restart is needed for " + ", ".join(str(change["key"]) for change in restart) if restart else ""
    return told + more + late
