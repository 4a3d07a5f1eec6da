"""Readings in, watt hours out: integrates what boards draw, and never fills a gap. No I/O and no clock.

Every second of a board belongs to one state and is either measured or not:

- Between two readings no further apart than `max_gap_s` the power runs straight from one to the other (trapezoid); a
  change of phase in between cuts it where it happened.
- A change of power in between is a step: the reading before holds up to it, the reading after holds from it. What lies
  between several steps was seen by nobody, and is unmeasured.
- Readings further apart leave a gap, unmeasured, whatever the read-back says: an outlet that is off passes nothing, but
  that is a conclusion, and conclusions are estimates (`agent.energy_report`).
- A device that counts energy itself has measured across a gap: the difference of its counter is taken.
"""

import math
from dataclasses import dataclass, field

from agent.energy import DAY_S, HOUR_S, JOULES_PER_WH, Amount, BoardRecord, BucketKey, Condition, MeterReading
from agent.unit import Moment
from wire.energy import EnergyState
from wire.phases import Power

MAX_POWER_W = 25_000.0
"""More than any rack PDU's outlet carries (32 A on three phases are 22 kW): such a reading is a fault of the meter."""
MAX_COUNTER_GAP_S = 3600.0
"""How long a device with a counter may be silent and still have its difference taken. In longer ones the energy would
land in hours and states in which it was not used."""
HOURS_KEPT_S = 14 * DAY_S
DAYS_KEPT_S = 400 * DAY_S
"""Over a year, so that a day can be set beside the same day of the year before."""


@dataclass(slots=True)
class _Track:
    """One board between its last accounted moment and now."""

    record: BoardRecord
    at: float
    """Monotonic time up to which everything is accounted for."""
    edges: list[tuple[float, Condition]]
    """What it did since `at`, the first entry being what it did then."""
    power_w: float | None = None
    """Read at `at`."""
    counter_wh: float | None = None
    """The device's counter at `at`."""
    last_w: float | None = None
    dropped: int = 0
    totals: dict[EnergyState, Amount] = field(default_factory=dict)

    def condition(self) -> Condition:
        return self.edges[-1][1]

    def pieces(self, now: float) -> list[tuple[float, float, Condition]]:
        """What it did, piece by piece. A first piece without length is kept: that it was off until then tells that
        its power was switched then; of an unknown power it tells nothing. A last one belongs to what follows."""
        edges = [edge for number, edge in enumerate(self.edges) if number == 0 or edge[0] < now]
        if len(edges) > 1 and edges[1][0] == self.at and edges[0][1].power is Power.UNKNOWN:
            del edges[0]
        ends = [at for at, _ in edges[1:]] + [now]
        return [(at, end, condition) for (at, condition), end in zip(edges, ends, strict=True)]


@dataclass(frozen=True, slots=True)
class _Span:
    """A piece of time of one state. Without watts it was not measured."""

    begin: float
    end: float
    state: EnergyState
    watts: tuple[float, float] | None
    """At its begin and its end, straight in between."""


@dataclass(slots=True)
class Unstored:
    """What was accounted for since `EnergyMeter.take`: buckets to add to, records to replace."""

    buckets: dict[BucketKey, Amount] = field(default_factory=dict)
    records: dict[str, BoardRecord] = field(default_factory=dict)


class EnergyMeter:
    """Counts for all boards of an agent. `max_gap_s` is how far apart two readings may be and still be joined."""

    def __init__(self, max_gap_s: float) -> None:
        self._max_gap_s = max_gap_s
        self._tracks: dict[str, _Track] = {}
        self._buckets: dict[BucketKey, Amount] = {}
        self._touched: set[str] = set()

    # --- what happens --------------------------------------------------------------------------------------------

    def begin(self, board: str, record: BoardRecord | None, moment: Moment) -> None:
        """Start counting, or go on from what was stored: the time in between is unmeasured and its state unknown,
        unless the device's counter measured it. The wall clock alone knows how long that was; if it went backwards
        there was no time in between, and of an absence longer than days are kept only that much counts."""
        if record is None:
            record = BoardRecord(moment.wall, moment.wall, None, {})
        away_s = min(max(0.0, (moment.wall - record.until).total_seconds()), float(DAYS_KEPT_S))
        track = _Track(record, moment.monotonic - away_s, [(moment.monotonic - away_s, Condition())])
        track.counter_wh = record.counter_wh
        track.totals = {state: Amount(a.measured_s, a.unmeasured_s, a.wh) for state, a in record.totals.items()}
        self._tracks[board] = track
        self._touched.add(board)

    def changed(self, board: str, condition: Condition, moment: Moment) -> None:
        """The board's power or phase is another from now on. A board that was never begun is passed over."""
        track = self._tracks.get(board)
        if track is None or condition == track.condition():
            return
        self._close_what_is_overdue(board, track, moment)
        track.edges.append((max(moment.monotonic, track.edges[-1][0]), condition))

    def read(self, board: str, reading: MeterReading | None, condition: Condition, moment: Moment) -> None:
        """Take a reading; None when the device said nothing, or there is none.

        Raises:
            KeyError: the board was never begun.
        """
        track = self._tracks[board]
        power_w = self._plausible(track, None if reading is None else reading.power_w, MAX_POWER_W)
        counter_wh = self._plausible(track, None if reading is None else reading.energy_wh, math.inf)
        self.changed(board, condition, moment)
        now = moment.monotonic
        if now == track.at and (power_w is not None or counter_wh is not None):
            track.edges = [(now, condition)]
            track.power_w = track.last_w = power_w
            track.counter_wh = counter_wh if track.counter_wh is None else track.counter_wh
        if now <= track.at:
            return
        if power_w is None and counter_wh is None:
            self._close_what_is_overdue(board, track, moment)
            return
        self._close(board, track, moment, power_w, counter_wh)

    def _close_what_is_overdue(self, board: str, track: _Track, moment: Moment) -> None:
        """One missing reading is bridged by the next; when it has become too late for that, there is a gap."""
        waited_s = moment.monotonic - track.at
        bridged = track.power_w is not None and waited_s <= self._max_gap_s
        counted = track.counter_wh is not None and waited_s <= MAX_COUNTER_GAP_S
        if waited_s > 0 and not bridged and not counted:
            self._close(board, track, moment, None, None)

    def _plausible(self, track: _Track, value: float | None, limit: float) -> float | None:
        if value is None:
            return None
        if not math.isfinite(value) or not 0 <= value <= limit:
            track.dropped += 1
            return None
        return value

    # --- integration ---------------------------------------------------------------------------------------------

    def _close(
        self, board: str, track: _Track, moment: Moment, power_w: float | None, counter_wh: float | None
    ) -> None:
        """Account for everything up to now, and begin anew from this reading."""
        now = moment.monotonic
        pieces = track.pieces(now)
        spans = self._by_watts(track, pieces, now, power_w)
        bridged = track.power_w is not None and power_w is not None and now - track.at <= self._max_gap_s
        if not bridged:
            spans = self._by_counter(track, pieces, now, counter_wh) or spans
        for span in spans:
            self._account(board, track, span, moment)
        track.edges = [(now, track.condition())]
        track.at, track.power_w, track.counter_wh, track.last_w = now, power_w, counter_wh, power_w
        track.record = BoardRecord(track.record.since, moment.wall, counter_wh, track.totals)
        self._touched.add(board)

    def _by_watts(
        self, track: _Track, pieces: list[tuple[float, float, Condition]], now: float, power_w: float | None
    ) -> list[_Span]:
        first_w, length_s = track.power_w, now - track.at
        powers = [condition.power for _, _, condition in pieces]
        if len(set(powers)) == 1:
            if first_w is None or power_w is None or length_s > self._max_gap_s:
                return [_Span(begin, end, condition.state, None) for begin, end, condition in pieces]
            slope = (power_w - first_w) / length_s
            return [
                # Not below 0 by a rounding of its last digit.
                _Span(
                    begin,
                    end,
                    condition.state,
                    (max(0.0, first_w + slope * (begin - track.at)), max(0.0, first_w + slope * (end - track.at))),
                )
                for begin, end, condition in pieces
            ]
        head, tail = _run_length(powers), len(powers) - _run_length(powers[::-1])
        # A read-back that failed says nothing of when the power changed, so nothing holds up to it.
        hold_first = Power.UNKNOWN not in powers[: head + 1] and pieces[head - 1][1] - track.at <= self._max_gap_s
        hold_last = Power.UNKNOWN not in powers[tail - 1 :] and now - pieces[tail][0] <= self._max_gap_s
        spans = []
        for number, (begin, end, condition) in enumerate(pieces):
            level = None
            if number < head and hold_first:
                level = first_w
            elif number >= tail and hold_last:
                level = power_w
            spans.append(_Span(begin, end, condition.state, None if level is None else (level, level)))
        return spans

    def _by_counter(
        self, track: _Track, pieces: list[tuple[float, float, Condition]], now: float, counter_wh: float | None
    ) -> list[_Span]:
        """The difference of the device's counter over the time in which its outlet was not off; nothing if there is
        none to be had. A counter that went back was started anew, and what it had counted by then is lost."""
        if counter_wh is None or track.counter_wh is None or now - track.at > MAX_COUNTER_GAP_S:
            return []
        used_wh = counter_wh - track.counter_wh
        if used_wh < 0:
            return []
        on_s = sum(end - begin for begin, end, condition in pieces if condition.power is not Power.OFF)
        fed_s = on_s or now - track.at
        level = used_wh * JOULES_PER_WH / fed_s
        if level > MAX_POWER_W:
            track.dropped += 1
            return []
        return [
            _Span(begin, end, condition.state, (0.0, 0.0) if on_s and condition.power is Power.OFF else (level, level))
            for begin, end, condition in pieces
        ]

    def _account(self, board: str, track: _Track, span: _Span, moment: Moment) -> None:
        length_s = span.end - span.begin
        if length_s <= 0:
            return
        track.totals.setdefault(span.state, Amount()).add(_amount(length_s, span.watts))
        # Intervals are monotonic, buckets are wall time: the wall clock of the closing reading is believed.
        ends_s = moment.wall.timestamp() - (moment.monotonic - span.end)
        begin_s = ends_s - length_s
        oldest_hour_s = moment.wall.timestamp() - HOURS_KEPT_S
        here_s = begin_s
        while here_s < ends_s:
            unit_s = HOUR_S if here_s >= oldest_hour_s else DAY_S
            next_s = min(float((here_s // unit_s + 1) * unit_s), ends_s)
            watts = None
            if span.watts is not None:
                low, high = span.watts
                slope = (high - low) / length_s
                watts = max(0.0, low + slope * (here_s - begin_s)), max(0.0, low + slope * (next_s - begin_s))
            part = _amount(next_s - here_s, watts)
            for length in (HOUR_S, DAY_S) if unit_s == HOUR_S else (DAY_S,):
                key = BucketKey(board, length, int(here_s // length) * length, span.state)
                self._buckets.setdefault(key, Amount()).add(part)
            here_s = next_s

    # --- what came of it -----------------------------------------------------------------------------------------

    def take(self) -> Unstored:
        """What is to be stored. If storing fails, hand it to `put_back`."""
        taken = Unstored(self._buckets, {board: self.record(board) for board in self._touched})
        self._buckets, self._touched = {}, set()
        return taken

    def put_back(self, unstored: Unstored) -> None:
        """`unstored` could not be stored: it comes again with the next `take`."""
        for key, amount in unstored.buckets.items():
            self._buckets.setdefault(key, Amount()).add(amount)
        self._touched.update(unstored.records)

    def record(self, board: str) -> BoardRecord:
        """The board up to its last accounted moment. Raises KeyError for one that was never begun."""
        track = self._tracks[board]
        totals = {state: Amount(a.measured_s, a.unmeasured_s, a.wh) for state, a in track.totals.items()}
        return BoardRecord(track.record.since, track.record.until, track.counter_wh, totals)

    def power_w(self, board: str, moment: Moment) -> float | None:
        """The last reading, unless it is older than a gap, or the board's power was switched since."""
        track = self._tracks[board]
        switched = any(condition.power is not track.edges[0][1].power for _, condition in track.edges)
        return None if switched or moment.monotonic - track.at > self._max_gap_s else track.last_w

    def dropped(self, board: str) -> int:
        """Readings since `begin` that could not be true. Raises KeyError for a board that was never begun."""
        return self._tracks[board].dropped


def _run_length(powers: list[Power]) -> int:
    return next((number for number, power in enumerate(powers) if power is not powers[0]), len(powers))


def _amount(seconds: float, watts: tuple[float, float] | None) -> Amount:
    if watts is None:
        return Amount(unmeasured_s=seconds)
    return Amount(measured_s=seconds, wh=(watts[0] + watts[1]) / 2 * seconds / JOULES_PER_WH)
