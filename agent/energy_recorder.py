"""The agent's metering task: asks the meters, stores what was used, and says it.

Reading, storing and saying each may fail without the others: a meter that does not answer leaves a gap, a full disk
leaves what was metered waiting in memory, and neither ends the task.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime

from agent.energy import DAY_S, HOUR_S, Condition, MeterReading
from agent.energy_meter import EnergyMeter
from agent.energy_report import BoardFacts, Nameplate, board_energy, telemetry
from agent.energy_store import EnergyStore
from agent.requests import Answer, RequestError
from agent.unit import Moment
from wire.energy import BoardEnergy, EnergyReport
from wire.payloads import Telemetry
from wire.phases import ErrorKind

log = logging.getLogger(__name__)

GAP_INTERVALS = 3
"""Two missed readings are bridged, more are a gap: a busy PDU misses one now and then."""
STORE_EVERY_S = 45.0
"""With the default interval of 10 s a kill -9 loses less than a minute; an SD card is spared a write per reading."""
READ_TIMEOUT_S = 30.0
"""Controllers have their own, shorter deadlines; this one is for when they are broken."""
FORGET_EVERY_S = 6 * HOUR_S
MAX_ANSWER_BYTES = 128 * 1024
"""Half of what a payload may have; the rest of the boards is in the next answer."""
PERIODS = {"hour": HOUR_S, "day": DAY_S}

Reading = MeterReading | float | None
"""A bare number is watts."""
WattsSource = Callable[[], Awaitable[Mapping[str, Reading]]]
"""Reads all meters. A board that is missing, or None, was not measured."""
ConditionSource = Callable[[str], Condition]
"""A board's power as read back, and its phase."""


def metering_moment() -> Moment:
    """Now. CLOCK_BOOTTIME, because a board goes on drawing power while its host is suspended."""
    return Moment(time.clock_gettime(time.CLOCK_BOOTTIME), datetime.now(UTC))


class EnergyRecorder:
    """Meters all boards of one agent. `start`, then `run` until cancelled, then `close`."""

    def __init__(
        self,
        store: EnergyStore,
        plates: Mapping[str, Nameplate],
        *,
        every_s: float,
        read: WattsSource,
        condition: ConditionSource,
        publish: Callable[[str, Telemetry], None],
        moment: Callable[[], Moment] = metering_moment,
    ) -> None:
        """`plates` names all boards to meter. `every_s` is how often, in seconds; must be above 0."""
        self._store = store
        self._plates = plates
        self._every_s = every_s
        self._read = read
        self._condition = condition
        self._publish = publish
        self._moment = moment
        self._meter = EnergyMeter(GAP_INTERVALS * every_s)
        self._metering: set[str] = set()
        self._temperatures: dict[str, float | None] = {}
        self._stored_at = self._forgot_at = 0.0
        self._failing = False
        self._storing = asyncio.Lock()
        self._flushes: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take up what was stored.

        Raises:
            sqlite3.Error: it cannot be read.
        """
        records = await self._store.records()
        now = self._moment()
        for board in self._plates:
            self._meter.begin(board, records.get(board), now)
            self._meter.changed(board, self._condition(board), now)
        self._stored_at = now.monotonic

    async def run(self) -> None:
        """Meter for ever; ends by cancellation."""
        while True:
            begun = time.monotonic()
            await self.tick()
            # A slow meter does not shift the beat; one that is slower than the beat is asked again at once, not twice.
            await asyncio.sleep(max(0.0, self._every_s - (time.monotonic() - begun)))

    async def close(self) -> None:
        """Store what is not stored yet."""
        await self.flush()

    async def follow(self, plates: Mapping[str, Nameplate]) -> None:
        """Other boards, or other plates, from now on. What was metered of boards that are gone stays stored.

        Raises:
            sqlite3.Error: what is stored cannot be read.
        """
        new = [board for board in plates if board not in self._plates]
        if new:
            await self.flush()
            records = await self._store.records()
            now = self._moment()
            for board in new:
                self._meter.begin(board, records.get(board), now)
                self._meter.changed(board, self._condition(board), now)
        self._plates = dict(plates)

    def changed(self, board: str) -> None:
        """The board's power or phase may be another now. Costs nothing when it is not."""
        if board not in self._plates:
            return
        self._meter.changed(board, self._condition(board), self._moment())

    # --- metering ------------------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Read all meters once, say what they said, store it when it is time."""
        readings = await self._readings()
        plates = self._plates
        now = self._moment()
        storing = now.monotonic - self._stored_at >= STORE_EVERY_S
        for board in plates:
            reading = _reading(readings.get(board))
            self._temperatures[board] = None if reading is None else reading.temperature_c
            self._meter.read(board, reading, self._condition(board), now)
            power_w = self._meter.power_w(board, now)
            # A meter that fell silent is said so once; what is estimated alone is news once per storing.
            if power_w is not None or board in self._metering or storing:
                self._say(board, now)
            (self._metering.discard if power_w is None else self._metering.add)(board)
        if storing:
            await self.flush()

    def _say(self, board: str, now: Moment) -> None:
        told = telemetry(self._facts(board, now), self._temperatures.get(board))
        if (told.power_w, told.energy_wh, told.estimated_wh, told.temperature_c) != (None,) * 4:
            self._publish(board, told)

    async def _readings(self) -> Mapping[str, Reading]:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await self._read()
        except TimeoutError:
            log.warning("no power was measured: the meters took longer than %g s", READ_TIMEOUT_S)
            return {}

    async def flush(self) -> None:
        """Store now. A failure is logged once, and what was metered waits for the next time."""
        # Cancelled halfway it could not be told what was stored and what is to be stored again.
        task = asyncio.create_task(self._flush(), name="store metered energy")
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)
        await asyncio.shield(task)

    async def _flush(self) -> None:
        async with self._storing:
            unstored = self._meter.take()
            now = self._moment()
            self._stored_at = now.monotonic
            if not await self._stored(self._store.write(unstored)):
                self._meter.put_back(unstored)
            elif now.monotonic - self._forgot_at >= FORGET_EVERY_S:
                self._forgot_at = now.monotonic
                await self._stored(self._store.forget(now.wall))

    async def _stored(self, writing: Awaitable[None]) -> bool:
        try:
            await writing
        except (sqlite3.Error, OSError) as problem:
            if not self._failing:
                log.error("what was metered cannot be stored, and waits in memory: %s", problem)  # noqa: TRY400
            self._failing = True
            return False
        if self._failing:
            log.warning("what was metered can be stored again")
        self._failing = False
        return True

    # --- being asked ---------------------------------------------------------------------------------------------

    def _facts(self, board: str, now: Moment) -> BoardFacts:
        record = self._meter.record(board)
        return BoardFacts(
            record.since,
            record.totals,
            self._plates.get(board, Nameplate()),
            self._meter.power_w(board, now),
            self._meter.dropped(board),
        )

    async def report(
        self, since: datetime, *, boards: Collection[str] | None = None, by: str | None = None, after: str = ""
    ) -> EnergyReport:
        """What `boards` (all, by default) used since `since`; `by` lists it by `hour` or `day`, too. An answer that
        would be too long ends early and says so in `next`.

        Raises:
            sqlite3.Error: the store cannot be read.
        """
        await self.flush()
        now = self._moment()
        wanted = sorted(board for board in self._plates if board > after and (boards is None or board in boards))
        begun = self._store.window_start(since, now.wall)
        report = EnergyReport(since=begun, until=now.wall)
        told: list[BoardEnergy] = []
        size = 0
        for board in wanted:
            # One by one: a long list neither reads what does not fit, nor holds up everything else meanwhile.
            periods = await self._store.window(board, since, now.wall, PERIODS.get(by or ""))
            energy = board_energy(board, self._facts(board, now), periods, listed=by is not None)
            size += len(energy.model_dump_json())
            if told and size > MAX_ANSWER_BYTES:
                return report.model_copy(update={"boards": told, "next": told[-1].board})
            told.append(energy)
        return report.model_copy(update={"boards": told})

    async def answer(self, data: Mapping[str, object]) -> Answer:
        """The handler of the request `energy`: `since` (RFC 3339, or seconds back; a day by default), `boards`, `by`
        (`hour` or `day`), `after`.

        Raises:
            RequestError: one of them is wrong, or the store cannot be read.
        """
        since = _since(data.get("since", DAY_S), self._moment().wall)
        boards, by, after = data.get("boards"), data.get("by"), data.get("after", "")
        if boards is not None and not _are_texts(boards):
            raise RequestError(ErrorKind.BAD_REQUEST, "boards: a list of ids is needed", "boards")
        if by is not None and not (isinstance(by, str) and by in PERIODS):
            raise RequestError(ErrorKind.BAD_REQUEST, f"by: one of {', '.join(PERIODS)} is needed", "by")
        if not isinstance(after, str):
            raise RequestError(ErrorKind.BAD_REQUEST, "after: a board's id is needed", "after")
        chosen = None if boards is None else {str(board) for board in _listed(boards)}
        try:
            report = await self.report(since, boards=chosen, by=by, after=after)
        except sqlite3.Error as problem:
            raise RequestError(ErrorKind.INTERNAL, f"the metered energy cannot be read: {problem}") from problem
        return report.model_dump(mode="json")


def _reading(value: Reading) -> MeterReading | None:
    return MeterReading(power_w=value) if isinstance(value, int | float) else value


def _listed(value: object) -> Iterable[object]:
    return value if isinstance(value, list) else ()


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _since(value: object, now: datetime) -> datetime:
    problem = RequestError(ErrorKind.BAD_REQUEST, "since: an RFC 3339 time with offset, or seconds back", "since")
    try:
        if isinstance(value, bool):
            raise problem
        if isinstance(value, int | float):
            found = datetime.fromtimestamp(now.timestamp() - value, UTC)
        elif isinstance(value, str):
            found = datetime.fromisoformat(value)
        else:
            raise problem
    except (ValueError, OverflowError, OSError):
        raise problem from None
    if found.tzinfo is None or found > now:
        raise problem
    return found


async def not_metering(_data: Mapping[str, object]) -> Answer:
    """The handler of `energy` of an agent that does not meter.

    Raises:
        RequestError: always.
    """
    raise RequestError(ErrorKind.CONFIGURATION, "this agent does not meter: meter_every_s is 0 in its settings")
