"""The agent, wired: hardware, netboot and MQTT on the outside, `Shelf` in the middle.

Order of work for whatever happens: the shelf decides, the effects are stored in one transaction, then they are said.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from agent import (
    board_info,
    bootloader_bridge,
    console_actions_bridge,
    console_bridge,
    metering,
    netboot_bridge,
    own_info,
)
from agent.action_store import ActionStore
from agent.actions import Actions
from agent.board_names import BoardNames
from agent.board_words import BoardWords
from agent.boot_records import BootRecorder
from agent.commands import CommandDesk
from agent.console_steps_bridge import ConsoleSteps
from agent.effect_queue import POWER_TASK, EffectQueue
from agent.energy_recorder import EnergyRecorder
from agent.errors import AgentError
from agent.flash_bridge import desks as flash_desks
from agent.flash_bridge import start as start_flashing
from agent.hooks import DueHooks, HookDesk, HookRun
from agent.inbox import Inbox
from agent.joining import JoiningDesk
from agent.learn import bridge as learn_bridge
from agent.memory import MIGRATIONS, Memory
from agent.netboot_desk import NetbootDesk
from agent.outbox import NewEvent, Outbox
from agent.power.clock import kernel_boot_id
from agent.power.driver_factory import DriverFactory
from agent.power.driver_kind import DriverContext
from agent.power.errors import PowerError
from agent.power.journal import Journal
from agent.power.service import FindingKind, Listeners, PowerService
from agent.presence_bridge import PresenceDesk
from agent.reloading import Reloading, plans, stood_in_for
from agent.root_watch import roots_desk
from agent.segment_alerts import AlertChange
from agent.settings import AgentSettings
from agent.shelf import Effects, Moment, Shelf
from agent.unit import moment
from agent.voice import Voice
from daemon.mqtt_link import Message, MqttLink, Will
from daemon.state_folder import held
from daemon.store import Store
from netboot.events import NetbootEvent
from wire.payloads import AgentState, ErrorInfo, encode
from wire.phases import EventType, Power, Presence
from wire.topics import Topics

if TYPE_CHECKING:
    from agent.pdu_listener.service import PduListener

log = logging.getLogger(__name__)

STOP_GRACE_S = 12.0
"""A cycle that is cut short leaves a board off until somebody looks; `boardhand up` and systemd give us longer."""
LAST_WORDS_S = 2.0
"""For answers and events on a clean stop; events that are not said wait on disk."""
PDU_LISTENER_END_S = 3.0
"""For pdudaemon's clients to take their answers after the last of their switches."""


class Agent:
    """One agent from start to stop."""

    def __init__(self, settings: AgentSettings, path: Path | None = None) -> None:
        """`path` is the settings file, for reloads."""
        self.settings = settings
        self.reloading = Reloading(self, path)
        self.name = settings.agent.name
        self.topics = Topics(settings.mqtt.prefix)
        self.infos = {name: board_info.of(settings, name) for name in settings.boards}
        self._lasting: set[asyncio.Task[None]] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self.effects = EffectQueue(self)
        self.actions = Actions(self)
        self.pdu_listener: PduListener | None = None
        self.energy: EnergyRecorder | None = None
        self.names = BoardNames(self)
        self.presence = PresenceDesk(self)
        self.cables = learn_bridge.CableWatch(self)
        self.joining = JoiningDesk(self)
        self.words = BoardWords(self)
        self.hooks = HookDesk(settings.hooks, self.name, self._hook_ran)
        self.netboot = NetbootDesk(settings, self._netboot_event, self._netboot_alerts, lambda: roots_desk(self))
        self.consoles = console_bridge.desk(self)
        self.bootloaders = bootloader_bridge.desk(self)
        self.modes, self.flashes = flash_desks(self)
        self.console_steps = ConsoleSteps(self, stood_in_for(settings))
        self.session = 0
        self.stopping = False
        self._restored = False

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then say goodbye.

        Raises:
            DaemonError: another agent uses the same state folder, netboot cannot open its ports, or the disk takes
                nothing.
            StoreError: the state file cannot be used.
        """
        state_dir = self.settings.agent.state_dir
        with held(state_dir, "agent"):
            store = await Store.open(state_dir / "agent.db", MIGRATIONS)
            try:
                try:
                    await self._start(store)
                except sqlite3.Error as error:
                    why = f"{store.path}: cannot be written: {error}; make room on the disk, or mend it"
                    raise AgentError(why) from error
                log.info("agent %s, session %d: %d boards", self.name, self.session, len(self.settings.boards))
                await self._until(stop)
            finally:
                await self._stop()
                await store.close()

    async def _start(self, store: Store) -> None:
        settings = self.settings
        self.memory = Memory(store)
        self.session = await self.memory.next_session()
        self.since = datetime.now(UTC)
        table = settings.agent
        self.outbox = Outbox(store, agent=self.name, session=self.session, max_events=table.outbox_max_events)
        self.voice = Voice(self.outbox, self.topics.event)
        self.boots = await BootRecorder.opened(store)
        placed = self.consoles.placing(self.boots.placed)
        self.shelf = Shelf(self.name, self.session, plans(settings), moment(), placed=placed)
        journal = Journal(store, await asyncio.to_thread(kernel_boot_id))
        try:
            self.power = PowerService(
                settings.controllers,
                settings.feeds(),
                journal=journal,
                listeners=Listeners(self._power_read, self._power_unreadable),
                driver_factory=DriverFactory(DriverContext(mqtt=settings.mqtt)),
                circuits={name: circuit.inrush_spacing_s for name, circuit in settings.circuits.items()},
                poll_every_s=table.read_back_s,
            )
        except PowerError as error:
            raise AgentError(str(error)) from error
        self.energy = metering.recorder(self, store)
        self.commands = CommandDesk(self, force_allowed=table.force_allowed)
        await self.joining.start()
        self.learning, self.learn_ears = learn_bridge.desk(self, self.power.outlet_watts)
        self.inbox = Inbox(self)
        self._own(self.effects.run(), "effects")
        self._own(self.boots.run(), "boots")
        await self.consoles.start()
        console_actions_bridge.add(self)
        await self._restore()
        if self.energy is not None:
            await self.energy.start()
            self._own(self.energy.run(), "energy")
        await self.netboot.start(
            self.memory, off=[b for b in self.shelf.boards if self.shelf.unit(b).power is Power.OFF]
        )
        self._own(self.names.run(), "board names")
        self._own(self.netboot.run(), "netboot alerts")
        self.joining.apply_refused()
        await self.words.recall()
        await self.presence.start()
        if settings.pdu_listener is not None:
            from agent.pdu_listener.service import opened  # noqa: PLC0415  # few need it, and aiohttp is large

            self.pdu_listener = await opened(settings, self.commands, self.power)
        self.link = self._make_link()
        self.voice.link = self.link
        self.voice.retain(self.topics.agent_state(self.name), encode(self._state(Presence.ONLINE)))
        for board, info in self.infos.items():
            self.voice.retain(self.topics.board_info(board), encode(info))
        await self.link.start()
        await self.console_steps.start()
        self.begin(self.tell_info(), "info")
        self._own(self.voice.run(), "voice")
        self._own(self.effects.watch_deadlines(), "deadlines")
        self._own(self.reloading.run(), "reloading")

    async def _restore(self) -> None:
        """What was stored, corrected by the hardware. Nothing is switched."""
        stored = await self.memory.boards()
        numbers = await self.outbox.sequence_numbers()
        findings = await self.power.start()
        effects = Effects()
        cut_short = {finding.board for finding in findings if finding.kind is FindingKind.INTERRUPTED}
        for board in self.shelf.boards:
            self.shelf.unit(board).seq = numbers.get(board, 0)
            power = self.power.last(board)
            self.boots.power(board, power)
            self.consoles.power(board, power)
            bootloader_bridge.power_found(self, board, power)
            self.cables.power(board, power)
            effects.add(self.shelf.restore(board, stored.get(board), power, moment(), interrupted=board in cut_short))
        for finding in findings:
            log.warning("%s", finding.message)
            if finding.kind is FindingKind.INTERRUPTED and finding.board in self.shelf:
                effects.add(self.shelf.interrupted(finding.board, finding.message))
        self._restored = True
        await self.apply(effects)
        await self.commands.answer_interrupted()
        self.begin(self.learning.start(), "learn: putting back")
        await self.actions.start(ActionStore(self.memory.store))
        await start_flashing(self)

    def _make_link(self) -> MqttLink:
        state_topic = self.topics.agent_state(self.name)
        return MqttLink(
            self.settings.mqtt,
            f"boardhand-agent-{self.name}"[:64],
            will=Will(state_topic, encode(self._state(Presence.LOST))),
            subscriptions=self.inbox.subscriptions(),
            on_message=self.inbox.message,
            on_connect=self._connected,
            on_disconnect=self._disconnected,
        )

    async def _connected(self) -> None:
        await self.voice.greet(self.topics.agent_state(self.name))
        self.commands.leases.in_touch()

    def _disconnected(self, _reason: str) -> None:
        self.voice.fell_silent()
        self.commands.leases.out_of_touch()

    def _state(self, presence: Presence) -> AgentState:
        return AgentState(state=presence, session=self.session, since=self.since)

    async def _until(self, stop: asyncio.Event) -> None:
        """Wait for `stop`. A lasting task that dies is a fault of ours, and ends the agent rather than half of it."""
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({stopped, *self._lasting}, return_when=asyncio.FIRST_COMPLETED)
            for task in self._lasting:
                if task.done():
                    task.result()
        finally:
            stopped.cancel()

    async def _stop(self) -> None:
        """Let power commands that are under way come to their end, say offline, let go of everything."""
        self.stopping = True
        if hasattr(self, "learning"):
            await self.learning.stop()
        await self.actions.stop()
        await self.bootloaders.stop()
        await self.flashes.stop()
        await self.console_steps.stop()
        await self.presence.stop()
        commands = [task for task in self._passing if task.get_name().startswith(POWER_TASK)]
        if self.pdu_listener is not None:
            commands.append(asyncio.create_task(self.pdu_listener.stop(), name="pdu listener"))
        if commands:
            await asyncio.wait(commands, timeout=STOP_GRACE_S + PDU_LISTENER_END_S)
        if hasattr(self, "link") and self.link.connected:
            await self.voice.finish(LAST_WORDS_S)
        tasks = [*self._lasting, *self._passing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.energy is not None:
            await self.energy.close()
        if hasattr(self, "link"):
            state = encode(self._state(Presence.OFFLINE))
            await self.link.stop([Message(self.topics.agent_state(self.name), state, retain=True)])
        await self.netboot.stop()
        await self.consoles.stop()
        if hasattr(self, "power"):
            await self.boots.close()
            await self.power.close()

    def _own(self, work: Coroutine[object, object, None], name: str) -> None:
        self._lasting.add(asyncio.create_task(work, name=name))

    def begin(self, work: Coroutine[object, object, None], name: str) -> None:
        """Run `work` beside everything else. A fault in it is ours, is shown whole, and costs this one thing only."""
        task = asyncio.create_task(work, name=name)
        self._passing.add(task)
        task.add_done_callback(self._passed)

    def _passed(self, task: asyncio.Task[None]) -> None:
        self._passing.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=fault)

    # --- effects ---------------------------------------------------------------------------------------------

    @staticmethod
    def moment() -> Moment:
        """Now, on both clocks."""
        return moment()

    def submit(self, effects: Effects) -> None:
        """Have `effects` applied, after those that came before."""
        self.effects.submit(effects)

    async def apply(self, effects: Effects) -> None:
        """As `submit`, and wait until they are stored and their state is being said."""
        await self.effects.apply(effects)

    def run_hooks(self, due: DueHooks) -> None:
        """Run the hooks of a point that asks nothing, beside everything else."""
        self.begin(self.hooks.run_due(due), f"hook-{due.board}")

    def _hook_ran(self, board: str, result: HookRun) -> None:
        self.submit(Effects(events=[NewEvent(board, EventType.HOOK, result.details)]))

    def submit_if_any(self, effects: Effects) -> None:
        """`submit`, unless there is nothing to do."""
        if effects.events or effects.changed or effects.cycle or effects.enforce or effects.alerts:
            self.submit(effects)

    # --- what is heard ---------------------------------------------------------------------------------------

    def _power_read(self, board: str, power: Power) -> None:
        if not self._restored or board not in self.shelf:
            # What the first read-back means depends on what was stored; `_restore` takes it up.
            return
        self.boots.power(board, power)
        self.consoles.power(board, power)
        bootloader_bridge.power_read(self, board, power)
        self.cables.power(board, power)
        self.submit_if_any(self.shelf.power_read(board, power, moment()))

    def _power_unreadable(self, board: str, error: ErrorInfo | None) -> None:
        if board in self.shelf:
            self.submit_if_any(self.shelf.unreadable(board, error, moment()))

    def _netboot_alerts(self, changes: list[AlertChange]) -> None:
        effects = Effects()
        for change in changes:
            if change.board is None:
                payload = b"" if change.alert is None else encode(change.alert)
                self.voice.retain(self.topics.agent_alert(self.name, change.name), payload)
                continue
            effects.alerts.append((change.board, change.name, change.alert))
            if change.is_new:
                effects.events.append(NewEvent(change.board, EventType.ALERT, change.details))
        self.submit_if_any(effects)

    def _netboot_event(self, event: NetbootEvent) -> None:
        self.boots.event(event)
        self.learn_ears.netboot(event)
        heard = netboot_bridge.heard(event)
        if heard is not None and heard.board in self.shelf:
            self.cables.heard(heard.board, "DHCP" if heard.details.get("what") == "dhcp" else "a fetched file")
            self.submit_if_any(self.shelf.heard(heard.board, heard.event, heard.details, moment()))

    async def tell_info(self) -> None:
        """Publish what this agent has."""
        info = await own_info.of(self.settings, await self.power.describe())
        self.voice.retain(self.topics.agent_info(self.name), encode(info))

    def reassert(self) -> None:
        """Somebody says that we are lost, or another session of ours: say what is. Our own goodbye is heard too."""
        if self.stopping:
            return
        self.voice.again([self.topics.agent_state(self.name)])
