"""The virtual PDU itself: outlets with their timers and faults, behind a responder and its tables."""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from virtual_lab.snmp_pdu_engine import Access, Responder, V3User
from virtual_lab.snmp_pdu_faults import DeviceReboot, LineFaults, carry_out_line
from virtual_lab.snmp_pdu_hooks import Hook
from virtual_lab.snmp_pdu_model import Act
from virtual_lab.snmp_pdu_tables import FAMILY_NAMES, PduTables

_log = logging.getLogger(__name__)

DEFAULT_ENGINE_ID = "8000013e0562682d706475"
"""A fixed engine ID (RFC 3411, SnmpEngineID; enterprise 318, text `bh-pdu`): a v3 client that lives on would otherwise
time out for ever after the PDU was started again."""

_DELAYED = {Act.DELAYED_ON: Act.ON, Act.DELAYED_OFF: Act.OFF, Act.DELAYED_REBOOT: Act.REBOOT}


@dataclass(frozen=True)
class PduSettings:
    """What a virtual PDU is like when it starts.

    Attributes:
        port: UDP port, 0 for any free one.
        families: whose tables it has, several at once as a real APC; the first one says the sysObjectID.
        model: one name of `virtual_lab.pdu_models.MODELS`; instead of `families`.
        names: what outlets are called, from the first on; the rest is "Outlet N".
        read_community: may only read; SETs with it are answered noAccess.
        write_community: may do all. Any other community meets silence.
        delay_s: the state column follows the control column after this.
        delayed_s: what the device's own delayed commands wait.
        reboot_off_s: how long the device's own reboot command leaves an outlet off.
        watts_on: what each outlet that is on is said to draw.
        unswitched: outlets that are always as they are; a SET of them is answered notWritable.
        idle: outlets with nothing attached that draws power; a PoE port stays at searching(2).
        light: answer v1 and v2c by our own BER code rather than by pysnmp; for benchmarks. v3 stays with pysnmp.
    """

    host: str = "127.0.0.1"
    port: int = 0
    outlets: int = 8
    families: tuple[str, ...] = FAMILY_NAMES
    model: str | None = None
    names: tuple[str, ...] = ()
    read_community: str = "public"
    write_community: str = "private"
    users: tuple[V3User, ...] = ()
    engine_id: str = DEFAULT_ENGINE_ID
    delay_s: float = 0.0
    delayed_s: float = 1.0
    reboot_off_s: float = 1.0
    watts_on: int = 12
    initially_on: bool = False
    lying: frozenset[str] = frozenset()
    refusing: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    unswitched: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    light: bool = False


@dataclass(frozen=True, slots=True)
class _Pending:
    timer: asyncio.TimerHandle
    target: bool
    due_s: float


@dataclass
class VirtualPdu(LineFaults):
    """The PDU. `hook`, where given, is awaited with (outlet, on) when an outlet has really switched.

    Faults are attributes that may be changed at any time: those of `LineFaults`, and

    Attributes:
        lying: outlets that accept and do not switch.
        refusing: outlets that answer every SET with genErr.
        missing: outlets without instances: noSuchInstance, and walks pass them by.
        wrong_index: answers carry the next instance's name and value.
        wrong_type: integers are answered as strings and everything else as an integer.
        reboot_on_set: the next SET makes the device reboot, once.
        sets: every SET that reached the tables, as (outlet, value), for tests that count them; -1 for a string.
        edges: every real change, as (outlet, on).
        boots: how often it has started, reboots included.
    """

    settings: PduSettings = field(default_factory=PduSettings)
    hook: Hook | None = None
    wrong_index: bool = False
    wrong_type: bool = False
    reboot_on_set: DeviceReboot | None = None
    port: int = field(default=0, init=False)
    boots: int = field(default=0, init=False)
    sets: list[tuple[str, int]] = field(default_factory=list, init=False)
    edges: list[tuple[str, bool]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        s = self.settings
        names = [str(number) for number in range(1, s.outlets + 1)]
        self.on: dict[str, bool] = dict.fromkeys(names, s.initially_on)
        self.lying, self.refusing, self.missing = set(s.lying), set(s.refusing), set(s.missing)
        self.idle, self.unswitched = set(s.idle), s.unswitched
        self.delay_s = s.delay_s
        self._pending: dict[str, _Pending] = {}
        self._hooks: set[asyncio.Task[None]] = set()
        self._booting: asyncio.TimerHandle | None = None
        self._engine_id = s.engine_id
        self._tables = PduTables(self, s.families if s.model is None else (s.model,))
        self._responder: Responder | None = None

    async def __aenter__(self) -> Self:
        s = self.settings
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind((s.host, s.port))
            sock.setblocking(False)
            self.port = sock.getsockname()[1]
            access = Access(s.read_community, s.write_community, s.users)
            self._responder = Responder(self._tables, self, access, light=s.light)
            self._responder.boot(self._engine_id)
            self.boots = 1
            await self._responder.serve(sock)
        except BaseException:
            sock.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for pending in self._pending.values():
            pending.timer.cancel()
        if self._booting is not None:
            self._booting.cancel()
        if self._responder is not None:
            await self._responder.close()
        for task in list(self._hooks):
            task.cancel()
        if self._hooks:
            await asyncio.wait(self._hooks)

    # --- what the tables ask -------------------------------------------------------------------------------------

    def name(self, outlet: str) -> str:
        at = int(outlet) - 1
        return self.settings.names[at] if at < len(self.settings.names) else f"Outlet {outlet}"

    def watts(self, outlet: str) -> int:
        return self.settings.watts_on if self.on[outlet] and outlet not in self.idle else 0

    def pending(self, outlet: str) -> bool | None:
        """What the outlet is about to become, or None."""
        pending = self._pending.get(outlet)
        return None if pending is None else pending.target

    def is_pending(self, outlet: str) -> bool:
        return outlet in self._pending

    def seconds_left(self, outlet: str) -> int | None:
        """Whole seconds until the pending command, or None."""
        pending = self._pending.get(outlet)
        return None if pending is None else max(0, round(pending.due_s - asyncio.get_running_loop().time()))

    def carry_out(self, actions: list[Callable[[], None]]) -> None:
        """Do what a SET says, or reboot in the middle of it."""
        fault, self.reboot_on_set = self.reboot_on_set, None
        if fault is None or fault.carried_out:
            for action in actions:
                action()
        if fault is not None:
            self.reboot_device(fault)

    def act(self, outlet: str, act: Act, after_s: float = 0.0) -> None:
        """What a SET of a control column does."""
        if act is Act.NOTHING:
            return
        if act in _DELAYED:
            act, after_s = _DELAYED[act], after_s + self.settings.delayed_s
        if act is Act.CANCEL:
            self._cancel(outlet)
        elif act is Act.REBOOT:
            self.reboot(outlet, after_s)
        else:
            self.command(outlet, act is Act.ON, after_s)

    def command(self, outlet: str, on: bool, after_s: float = 0.0) -> None:  # noqa: FBT001 - as Driver.set
        """The outlet follows after the delay, unless it lies. A newer command takes the place of a pending one."""
        self._cancel(outlet)
        if outlet not in self.lying:
            self._after(outlet, self.delay_s + after_s, on, lambda: self.press(outlet, on))

    def reboot(self, outlet: str, after_s: float = 0.0) -> None:
        """The device's own reboot command: off now (or later), and on again a while after."""
        self._cancel(outlet)
        if outlet not in self.lying:
            self._after(outlet, after_s, False, lambda: self._off_and_on(outlet))

    def _off_and_on(self, outlet: str) -> None:
        self.press(outlet, False)
        self.command(outlet, True, after_s=self.settings.reboot_off_s)

    def _after(self, outlet: str, delay_s: float, target: bool, do: Callable[[], None]) -> None:  # noqa: FBT001
        if delay_s <= 0:
            do()
            return

        def follow() -> None:
            self._pending.pop(outlet, None)
            do()

        loop = asyncio.get_running_loop()
        self._pending[outlet] = _Pending(loop.call_later(delay_s, follow), target, loop.time() + delay_s)

    def _cancel(self, outlet: str) -> None:
        earlier = self._pending.pop(outlet, None)
        if earlier is not None:
            earlier.timer.cancel()

    def press(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        """Switch now, as by hand at the PDU's own button.

        Raises:
            KeyError: no such outlet.
        """
        if self.on[outlet] == on:
            return
        self.on[outlet] = on
        self.edges.append((outlet, on))
        if self.hook is not None:
            task = asyncio.ensure_future(self._call_hook(self.hook, outlet, on))
            self._hooks.add(task)
            task.add_done_callback(self._hooks.discard)

    async def _call_hook(self, hook: Hook, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        try:
            await hook(outlet, on)
        except (OSError, EOFError, ValueError, TimeoutError) as problem:
            _log.warning("outlet %s: its hook failed: %s", outlet, problem)

    # --- the device as a whole -----------------------------------------------------------------------------------

    def restart(self, engine_id: str | None = None) -> None:
        """A new SNMP engine on the same port, at once: its boots count goes up, as RFC 3414 section 2.3 wants.

        Args:
            engine_id: hexadecimal, another one than before (a card that was replaced or reset); None keeps it.
        """
        self._engine_id = engine_id or self._engine_id
        self.boots += 1
        if self._responder is not None:
            self._responder.boot(self._engine_id)

    def reboot_device(self, fault: DeviceReboot) -> None:
        """The device reboots: silent for a while, then a new engine, and its outlets as `fault` says."""
        for outlet in list(self._pending):
            self._cancel(outlet)
        if self._booting is not None:
            self._booting.cancel()
        self.silent_in, self.silent_out = True, not fault.answered
        self._booting = asyncio.get_running_loop().call_later(fault.silent_s, self._booted, fault.outlets)

    def _booted(self, outlets: Literal["last", "on", "off"]) -> None:
        self._booting = None
        if outlets != "last":
            for outlet in self.on:
                self.press(outlet, outlets == "on")
        self.restart()
        self.silent_in = self.silent_out = False

    def control(self, line: str) -> dict[str, Any]:
        """Carry out one control line; returns the answer. A bad line is answered with `error`, never raised."""
        return carry_out_line(self, line)
