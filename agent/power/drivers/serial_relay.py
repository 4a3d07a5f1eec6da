"""Relay boards on serial ports. What they say stands in `serial_relay_protocols`; the port in `serial_port`."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import serial

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.serial_port import SerialPort
from agent.power.drivers.serial_relay_protocols import PROTOCOLS, Exchange, GarbledError, States
from agent.power.errors import ConfigurationError, PowerError, UnreachableError
from agent.power.kinds.serial_relay import SerialRelaySettings
from wire.phases import Power

T = TypeVar("T")

CALL_MARGIN_S = 3.0
"""For opening the port, and for a port that takes our bytes slowly."""
LONGEST_QUIET_TIMEOUTS = 4
"""A line that never becomes quiet is listened to for so many reply timeouts, no longer."""


class _SilenceError(UnreachableError):
    """Not a byte came."""


class SerialRelayDriver:
    """One board. An outlet is a relay's number from 1."""

    def __init__(self, name: str, settings: SerialRelaySettings) -> None:
        self._name = name
        self._settings = settings
        self._protocol = PROTOCOLS[settings.protocol](settings.outlets)
        self._port = SerialPort(
            name, settings.device, settings.baudrate or self._protocol.baudrate, opened=self._opened
        )
        self._answers: bool | None = None if settings.read_back else False
        self._owes_answer = False
        """An answer did not come in time, and may come yet."""
        questions = 1 if self._protocol.asks_all else settings.outlets
        slowest = settings.reply_timeout_s * (
            LONGEST_QUIET_TIMEOUTS + len(self._protocol.greeting) + 1 + 0.1 * questions
        )
        self._timing = Timing(
            verify_deadline_s=2.0, poll_interval_s=0.02, settle_s=0.2, call_timeout_s=slowest + CALL_MARGIN_S
        )

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def reads_back(self) -> bool:
        return self._answers is not False

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        exchange = self._protocol.switch(self._relay(outlet), on)
        await self._call(lambda port: self._talk(port, exchange), outlet)

    async def get(self, outlet: str) -> Power:
        relay = self._relay(outlet)
        states = await self._call(lambda port: self._ask(port, self._protocol.ask(relay)), outlet)
        return _power(states, relay)

    async def get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        """One question where the protocol has one for all; else one after the other, in one go."""
        found: dict[str, Power | PowerError] = {}
        relays: dict[str, int] = {}
        for outlet in outlets:
            try:
                relays[outlet] = self._relay(outlet)
            except ConfigurationError as problem:
                found[outlet] = problem
        states = await self._call(lambda port: self._ask_for(port, relays.values()), None) if relays else {}
        return found | {outlet: _power(states, relay) for outlet, relay in relays.items()}

    async def read(self, outlet: str) -> float | None:
        """Relays measure nothing."""
        self._relay(outlet)
        return None

    async def read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        return {outlet: await self.read(outlet) for outlet in outlets}

    async def describe(self) -> list[OutletDescription]:
        relays = range(1, self._settings.outlets + 1)
        states = await self._call(lambda port: self._ask_for(port, relays), None)
        return [OutletDescription(str(relay), self._protocol.label(relay), _power(states, relay)) for relay in relays]

    async def close(self) -> None:
        await self._port.close()

    def _relay(self, outlet: str) -> int:
        if outlet.isascii() and outlet.isdigit() and not outlet.startswith("0") and len(outlet) <= len("2040"):
            relay = int(outlet)
            if relay <= self._settings.outlets:
                return relay
        raise ConfigurationError(
            f"there is no such relay: the board has 1 to {self._settings.outlets}",
            controller=self._name,
            outlet=outlet,
            do="correct the feed, or outlets of the controller",
        )

    async def _call(self, work: Callable[[serial.Serial], T], outlet: str | None) -> T:
        return await self._port.run(work, outlet=outlet)

    # --- on the port's thread ------------------------------------------------------------------------------------

    def _opened(self, port: serial.Serial) -> None:
        if self._settings.read_back:
            self._answers = None  # it may be another board that was plugged in
        self._greet(port)

    def _greet(self, port: serial.Serial) -> None:
        self._owes_answer = False
        silence: UnreachableError | None = None
        for greeting in self._protocol.greeting:
            try:
                self._exchange(port, greeting)
            except UnreachableError as problem:
                silence = problem
            else:
                return
        if silence is not None:
            raise silence

    def _ask_for(self, port: serial.Serial, relays: Iterable[int]) -> States | None:
        if self._protocol.asks_all is not None:
            return self._ask(port, self._protocol.asks_all())
        states: dict[int, bool] = {}
        for relay in sorted(relays):
            if relay not in states:
                told = self._ask(port, self._protocol.ask(relay))
                if told is None:
                    return None
                states |= told
        return states

    def _ask(self, port: serial.Serial, question: Exchange) -> States | None:
        if self._answers is False:
            return None
        try:
            states = self._talk(port, question)
        except _SilenceError:
            if self._answers is None and self._protocol.may_be_mute:
                self._answers = self._owes_answer = False
                return None
            raise
        self._answers = True
        return states

    def _talk(self, port: serial.Serial, exchange: Exchange) -> States:
        if self._owes_answer:
            self._await_quiet(port)
            self._greet(port)
        return self._exchange(port, exchange)

    def _exchange(self, port: serial.Serial, exchange: Exchange) -> States:
        port.reset_input_buffer()
        port.write(exchange.send)
        if exchange.reader is None:
            return {}
        reader, received = exchange.reader(), bytearray()
        self._owes_answer = True
        for data in self._arriving(port, self._settings.reply_timeout_s):
            received += data
            try:
                states = reader.feed(data)
            except GarbledError as problem:
                raise self._unreachable(f"answered {problem}") from problem
            if states is not None:
                self._owes_answer = False
                return states
        late = f"did not answer within {self._settings.reply_timeout_s:g} s"
        if received:
            raise self._unreachable(f"{late}: {bytes(received[:16]).hex(' ')} is no whole answer")
        raise self._unreachable(late, kind=_SilenceError)

    def _await_quiet(self, port: serial.Serial) -> None:
        """Let what was owed pass, so that it is not taken for the next answer."""
        until = time.monotonic() + self._settings.reply_timeout_s * LONGEST_QUIET_TIMEOUTS
        while time.monotonic() < until:
            port.timeout = self._settings.reply_timeout_s
            if not port.read(max(1, port.in_waiting)):
                return

    def _arriving(self, port: serial.Serial, timeout_s: float) -> Iterator[bytes]:
        until = time.monotonic() + timeout_s
        while (left_s := until - time.monotonic()) > 0:
            port.timeout = left_s
            if data := port.read(max(1, port.in_waiting)):
                yield data

    def _unreachable(self, problem: str, kind: type[UnreachableError] = UnreachableError) -> UnreachableError:
        settings = self._settings
        return kind(
            problem,
            controller=self._name,
            do=f"check that a {settings.protocol} board with {settings.outlets} relays is at {settings.device}",
        )


def _power(states: States | None, relay: int) -> Power:
    if states is None or relay not in states:
        return Power.UNKNOWN
    return Power.ON if states[relay] else Power.OFF


def make(name: str, settings: SerialRelaySettings, _context: DriverContext) -> SerialRelayDriver:
    """The driver of one controller."""
    return SerialRelayDriver(name, settings)
