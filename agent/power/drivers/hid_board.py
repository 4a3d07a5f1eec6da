"""A switching board that is a USB HID device: what all of them share. What each says stands in its own module."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from agent.power.driver import OutletDescription, Timing
from agent.power.drivers.hid_device import HidDevice, OpenHid, UsbBackend, Wanted
from agent.power.errors import ConfigurationError, PowerError, UnreachableError
from wire.phases import Power

MAX_OUTLETS = 64
CALL_MARGIN_S = 2.0
"""For finding the device among others, each of which may be deaf."""
REQUESTS_A_CALL = 6
"""Product string, language, identification, an answer owed, and the request itself, which may be two transfers."""


class GarbledError(Exception):
    """What came is no answer of this board; the text says what came."""


class HidBoard(Protocol):
    """How one kind of board is talked to. All calls run on the device's thread and may raise `usb.core.USBError`."""

    reads_back: bool

    def serial_of(self, hid: OpenHid) -> str | None:
        """Its serial; None when the device is no such board, whatever its ids say."""

    def outlets(self, hid: OpenHid) -> int:
        """How many it has; they count from 1."""

    def switch(self, hid: OpenHid, outlet: int, *, on: bool) -> None:
        """Tell the outlet."""

    def states(self, hid: OpenHid, outlets: Sequence[int]) -> Mapping[int, Power]:
        """Of these outlets, perhaps of more.

        Raises:
            GarbledError: what came is no answer.
        """


class HidBoardDriver:
    """One board. An outlet is its number from 1."""

    def __init__(self, name: str, board: HidBoard, wanted: Wanted, usb_backend: UsbBackend, timeout_s: float) -> None:
        self._name = name
        self._board = board
        self._device = HidDevice(name, wanted, usb_backend, board.serial_of, timeout_s)
        self._timing = Timing(
            verify_deadline_s=2.0,
            poll_interval_s=0.02,
            settle_s=0.2,
            call_timeout_s=timeout_s * REQUESTS_A_CALL + CALL_MARGIN_S,
        )

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def reads_back(self) -> bool:
        return self._board.reads_back

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        number = self._number(outlet)

        def work(hid: OpenHid) -> None:
            self._check(hid, number)
            self._board.switch(hid, number, on=on)

        await self._device.run(work, outlet=outlet)

    async def get(self, outlet: str) -> Power:
        number = self._number(outlet)

        def work(hid: OpenHid) -> Power:
            self._check(hid, number)
            return self._states(hid, [number])[number]

        return await self._device.run(work, outlet=outlet)

    async def get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        """As the board can: of all in one question, or one after the other in one go."""

        def work(hid: OpenHid) -> dict[str, Power | PowerError]:
            found: dict[str, Power | PowerError] = {}
            numbers: dict[str, int] = {}
            for outlet in outlets:
                try:
                    self._check(hid, number := self._number(outlet))
                except ConfigurationError as problem:
                    found[outlet] = problem
                else:
                    numbers[outlet] = number
            states = self._states(hid, list(numbers.values())) if numbers else {}
            return found | {outlet: states[number] for outlet, number in numbers.items()}

        return await self._device.run(work)

    async def read(self, outlet: str) -> float | None:
        """These boards measure nothing."""
        self._number(outlet)
        return None

    async def read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        return {outlet: await self.read(outlet) for outlet in outlets}

    async def describe(self) -> list[OutletDescription]:
        def work(hid: OpenHid) -> list[OutletDescription]:
            numbers = range(1, self._board.outlets(hid) + 1)
            states = self._states(hid, numbers)
            return [OutletDescription(str(number), power=states[number]) for number in numbers]

        return await self._device.run(work)

    async def identify(self) -> str:
        return await self._device.run(
            lambda hid: (
                f"{hid.product}: {hid.device.idVendor:04x}:{hid.device.idProduct:04x}, serial "
                f"{hid.serial or 'none'}, at {hid.path}"
            )
        )

    async def close(self) -> None:
        await self._device.close()

    def _number(self, outlet: str) -> int:
        if outlet.isascii() and outlet.isdigit() and not outlet.startswith("0") and int(outlet[:4]) <= MAX_OUTLETS:
            return int(outlet[:4])
        raise ConfigurationError(
            "an outlet of this board is a number from 1", controller=self._name, outlet=outlet, do="correct the feed"
        )

    def _check(self, hid: OpenHid, number: int) -> None:
        if number > (has := self._board.outlets(hid)):
            raise ConfigurationError(
                f"there is no such outlet: the board has 1 to {has}",
                controller=self._name,
                outlet=str(number),
                do="correct the feed",
            )

    def _states(self, hid: OpenHid, numbers: Sequence[int]) -> Mapping[int, Power]:
        try:
            return self._board.states(hid, numbers)
        except GarbledError as problem:
            self._device.give_up()
            raise UnreachableError(f"answered {problem}", controller=self._name, do="replug it") from problem
