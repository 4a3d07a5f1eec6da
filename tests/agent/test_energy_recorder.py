"""The task that meters: what it stores survives, what it cannot store waits, what it says is what was read."""

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.energy import DAY_S, HOUR_S, Amount, MeterReading
from agent.energy_meter import DAYS_KEPT_S, HOURS_KEPT_S, EnergyMeter
from agent.energy_recorder import STORE_EVERY_S, Reading, metering_moment, not_metering
from agent.energy_report import Nameplate
from agent.energy_store import EnergyStore
from agent.memory import MIGRATIONS
from agent.requests import RequestError, answer
from agent.unit import Moment
from daemon.store import Store
from tests.agent.energy_bench import ASLEEP, EVERY_S, NOON, READY, Bench
from wire.energy import Basis, EnergyReport, EnergyState
from wire.payloads import Request, decode, encode
from wire.phases import ErrorKind


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "agent.db", MIGRATIONS)
    yield opened
    await opened.close()


@pytest.fixture
async def bench(store: Store) -> Bench:
    made = Bench(store)
    await made.recorder.start()
    return made


async def test_an_idle_hour_a_night_asleep_and_what_it_saved(bench: Bench) -> None:
    bench.readings["b"] = 4.0
    await bench.recorder.tick()
    await bench.pass_s(3600)
    bench.conditions["b"] = ASLEEP
    bench.recorder.changed("b")
    bench.readings["b"] = 0.5
    await bench.pass_s(8 * 3600)
    board = await bench.board()
    assert board.measured_wh == pytest.approx(4 + 4, rel=1e-6)
    assert (board.saved_wh, board.saved_basis) == (pytest.approx(28, rel=1e-6), Basis.MEASURED)
    assert (board.on_s, board.sleeping_s) == (pytest.approx(3600), pytest.approx(8 * 3600))
    assert board.measured_s == pytest.approx(board.total_s)
    assert board.estimated_wh == 0
    assert board.metered


async def test_a_board_without_a_meter_is_estimated_from_its_settings(store: Store) -> None:
    bench = Bench(store, {"b": Nameplate(idle_w=3.0)})
    await bench.recorder.start()
    await bench.pass_s(3600)
    bench.conditions["b"] = ASLEEP
    bench.recorder.changed("b")
    await bench.pass_s(3600)
    board = await bench.board()
    assert (board.metered, board.measured_wh, board.measured_s) == (False, 0, 0)
    assert board.estimated_wh == pytest.approx(3, rel=1e-6)
    assert (board.saved_wh, board.saved_basis) == (pytest.approx(3, rel=1e-6), Basis.ESTIMATED)
    assert {told.power_w for _, told in bench.said} == {None}
    assert {told.energy_wh for _, told in bench.said} == {None}
    assert bench.said[-1][1].estimated_wh == pytest.approx(3, rel=1e-2)
    assert len(bench.said) <= 7200 / STORE_EVERY_S, "an estimate is news once a minute, not at each reading"


async def test_a_board_of_which_nothing_is_known_says_nothing(bench: Bench) -> None:
    await bench.pass_s(600)
    assert bench.said == []
    board = await bench.board()
    assert (board.estimated_wh, board.unknown_s) == (None, pytest.approx(600))


async def test_telemetry_at_each_reading_and_once_when_the_meter_falls_silent(bench: Bench) -> None:
    bench.readings["b"] = MeterReading(power_w=4.0, temperature_c=40.5)
    await bench.recorder.tick()
    await bench.pass_s(20)
    assert [(told.power_w, told.temperature_c) for _, told in bench.said] == [(4.0, 40.5)] * 3
    assert bench.said[-1][1].energy_wh == pytest.approx(80 / 3600)
    bench.readings.clear()
    bench.said.clear()
    await bench.pass_s(600)
    silent = [told for _, told in bench.said if told.power_w is None]
    assert silent
    assert [told.energy_wh for told in silent] == [pytest.approx(80 / 3600)] * len(silent)
    assert all(told.estimated_wh is not None or told.energy_wh for told in silent)


async def test_a_restart_goes_on_counting_and_leaves_its_gap_open(bench: Bench, store: Store) -> None:
    bench.readings["b"] = 4.0
    await bench.recorder.tick()
    await bench.pass_s(3600)
    await bench.recorder.close()
    before = await bench.board()
    again = Bench(store)
    again.begun = bench.moment().wall + timedelta(seconds=100)
    again.readings["b"] = 4.0
    await again.recorder.start()
    await again.recorder.tick()
    await again.pass_s(3600)
    board = await again.board()
    assert board.counting_since == before.counting_since == NOON
    assert board.measured_wh == pytest.approx(8, rel=1e-6)
    unknown = next(share for share in board.states if share.state is EnergyState.UNKNOWN)
    assert (unknown.unmeasured_s, unknown.estimated_wh) == (pytest.approx(100), None)
    assert board.total_s == pytest.approx(7300)


async def _meter_for_ever(folder: str) -> None:
    store = await Store.open(Path(folder) / "agent.db", MIGRATIONS)
    bench = Bench(store)
    bench.readings["b"] = 4.0
    await bench.recorder.start()
    await bench.recorder.tick()
    while True:
        await bench.pass_s(EVERY_S)
        (Path(folder) / "next").write_text(str(bench.now_s))
        (Path(folder) / "next").replace(Path(folder) / "metered")


def _child(folder: str) -> None:
    asyncio.run(_meter_for_ever(folder))


async def test_a_kill_9_loses_less_than_a_minute_and_nothing_twice(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_child, args=(str(tmp_path),))
    child.start()
    metered = tmp_path / "metered"
    try:
        async with asyncio.timeout(60):
            while not metered.exists() or float(metered.read_text()) < 3000:  # noqa: ASYNC110  # a foreign process
                await asyncio.sleep(0.02)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join(60)
    at_least_s = float(metered.read_text())
    store = await Store.open(tmp_path / "agent.db", MIGRATIONS)
    record = (await EnergyStore(store).records())["b"]
    totals = record.totals[EnergyState.IDLE]
    window = await EnergyStore(store).window("b", NOON - timedelta(hours=1), NOON + timedelta(days=2), None)
    await store.close()
    assert at_least_s - 60 < totals.measured_s <= at_least_s + 2 * EVERY_S
    assert totals.wh == pytest.approx(totals.measured_s * 4 / 3600)
    buckets = Amount()
    for period in window.values():
        buckets.add(period[EnergyState.IDLE])
    assert (buckets.measured_s, buckets.wh) == (pytest.approx(totals.measured_s), pytest.approx(totals.wh))


async def test_a_disk_that_is_full_costs_nothing_once_it_is_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.readings["b"] = 4.0
    await bench.recorder.tick()

    async def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(EnergyStore, "write", full)
        await bench.pass_s(600)
    assert [record.getMessage() for record in caplog.records] == [
        "what was metered cannot be stored, and waits in memory: database or disk is full"
    ]
    await bench.pass_s(600)
    assert (await bench.board()).measured_wh == pytest.approx(1200 * 4 / 3600, rel=1e-6)


async def test_meters_that_hang_leave_a_gap_and_do_not_stop_the_beat(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang() -> Mapping[str, Reading]:
        await asyncio.Event().wait()
        return {}

    bench.readings["b"] = 4.0
    await bench.recorder.tick()
    monkeypatch.setattr("agent.energy_recorder.READ_TIMEOUT_S", 0.01)
    bench.recorder._read = hang
    await bench.pass_s(60)
    bench.recorder._read = bench.read
    await bench.pass_s(60)
    board = await bench.board()
    assert (board.measured_s, board.total_s) == (pytest.approx(50), pytest.approx(120))


async def test_a_cancelled_store_is_neither_lost_nor_doubled(bench: Bench) -> None:
    bench.readings["b"] = 4.0
    await bench.recorder.tick()
    await bench.pass_s(30)
    task = asyncio.create_task(bench.recorder.flush())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await bench.recorder.close()
    assert (await bench.board()).measured_wh == pytest.approx(120 / 3600)


async def test_run_beats_and_ends_by_cancellation(store: Store) -> None:
    bench = Bench(store)
    bench.recorder._every_s = 0.01
    bench.recorder._moment = metering_moment
    read = asyncio.Event()

    async def source() -> Mapping[str, Reading]:
        count.append(1)
        if len(count) >= 3:
            read.set()
        return {"b": 1.0}

    count: list[int] = []
    bench.recorder._read = source
    await bench.recorder.start()
    task = asyncio.create_task(bench.recorder.run())
    async with asyncio.timeout(60):
        await read.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await bench.recorder.close()


async def test_what_is_older_than_it_is_kept_is_deleted(bench: Bench, store: Store) -> None:
    bench.readings["b"] = 4.0
    await bench.recorder.tick()
    await bench.pass_s(7200)
    await bench.recorder.flush()
    energy = EnergyStore(store)

    async def rows() -> dict[int, int]:
        found = await store.run(
            lambda db: db.execute("SELECT length_s, count(*) FROM energy_bucket GROUP BY length_s").fetchall()
        )
        return {row[0]: row[1] for row in found}

    assert await rows() == {HOUR_S: 2, DAY_S: 1}
    await energy.forget(NOON + timedelta(seconds=HOURS_KEPT_S + 1))
    assert await rows() == {HOUR_S: 1, DAY_S: 1}
    await energy.forget(NOON + timedelta(seconds=DAYS_KEPT_S + DAY_S))
    assert await rows() == {}
    assert (await energy.records())["b"].totals[EnergyState.IDLE].wh == pytest.approx(8)


async def test_periods_and_where_the_hours_end(bench: Bench) -> None:
    bench.readings["b"] = 4.0
    await bench.recorder.tick()
    await bench.pass_s(14 * 3600)
    by_day = await bench.board(by="day")
    assert [period.start.isoformat() for period in by_day.periods] == [
        "2026-11-21T00:00:00+00:00", "2026-11-22T00:00:00+00:00"
    ]  # fmt: skip
    assert [period.measured_wh for period in by_day.periods] == [pytest.approx(48), pytest.approx(8)]
    assert len((await bench.board(by="hour")).periods) == 14
    late = await bench.recorder.report(NOON + timedelta(hours=13, minutes=20))
    assert late.since == NOON + timedelta(hours=13)
    assert late.boards[0].measured_wh == pytest.approx(4)
    far = await bench.recorder.report(NOON - timedelta(days=20))
    assert far.since == datetime(2026, 11, 1, tzinfo=UTC)
    assert far.boards[0].measured_wh == pytest.approx(56)


async def test_a_long_answer_comes_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    boards = {f"b{number}": Nameplate(idle_w=1.0) for number in range(7)}
    bench = Bench(store, boards)
    await bench.recorder.start()
    await bench.pass_s(60)
    monkeypatch.setattr("agent.energy_recorder.MAX_ANSWER_BYTES", 2000)
    found, after = [], ""
    for _ in range(10):
        report = await bench.recorder.report(NOON - timedelta(hours=1), after=after)
        found += [board.board for board in report.boards]
        if report.next is None:
            break
        after = report.next
    assert found == sorted(boards)
    assert 1 < len(report.boards) < 7


async def test_a_state_file_from_before_metering_is_taken_up(tmp_path: Path) -> None:
    old = await Store.open(tmp_path / "agent.db", MIGRATIONS[:1])
    await old.close()
    store = await Store.open(tmp_path / "agent.db", MIGRATIONS)
    assert await EnergyStore(store).records() == {}
    await store.close()


# --- the request ------------------------------------------------------------------------------------------------


async def ask(bench: Bench, data: dict[str, object]):
    payload = encode(Request(transaction="t", data=data))
    return await answer("energy", payload, {"energy": bench.recorder.answer}, NOON)


async def test_the_request_is_answered_with_a_report(bench: Bench) -> None:
    bench.readings["b"] = 4.0
    await bench.recorder.tick()
    await bench.pass_s(60)
    for data in ({}, {"since": 3600}, {"since": "2026-11-21T11:00:00+00:00", "by": "hour", "boards": ["b", "x"]}):
        response = await ask(bench, data)
        assert response.ok, response.error
        report = decode(EnergyReport, json.dumps(response.data).encode())
        assert [board.board for board in report.boards] == ["b"]
        assert report.boards[0].measured_wh == pytest.approx(240 / 3600)


@pytest.mark.parametrize(
    ("data", "key"),
    [({"since": "yesterday"}, "since"), ({"since": "2026-11-21T11:00:00"}, "since"), ({"since": True}, "since"),
     ({"since": -5}, "since"), ({"since": 1e300}, "since"), ({"since": None}, "since"), ({"boards": "b"}, "boards"),
     ({"boards": [1]}, "boards"), ({"by": "week"}, "by"), ({"by": ["day"]}, "by"), ({"after": 1}, "after")],
)  # fmt: skip
async def test_a_wrong_request_is_told_which_key(bench: Bench, data: dict[str, object], key: str) -> None:
    response = await ask(bench, data)
    assert response.error is not None
    assert (response.error.kind, response.error.key) == (ErrorKind.BAD_REQUEST, key)


async def test_an_agent_that_does_not_meter_says_so() -> None:
    response = await answer("energy", encode(Request(transaction="t")), {"energy": not_metering}, NOON)
    assert response.error is not None
    assert response.error.kind is ErrorKind.CONFIGURATION


async def test_a_store_that_cannot_be_read_is_an_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise sqlite3.DatabaseError("disk I/O error")

    monkeypatch.setattr(EnergyStore, "window", broken)
    with pytest.raises(RequestError, match="disk I/O error"):
        await bench.recorder.answer({})


# --- of any series ----------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 4000), st.none() | st.floats(0, 100)), min_size=1, max_size=12), st.data())
async def test_stored_and_read_back_is_the_same(tmp_path_factory: pytest.TempPathFactory, series, data) -> None:
    store = await Store.open(tmp_path_factory.mktemp("energy") / "agent.db", MIGRATIONS)
    energy = EnergyStore(store)
    meter = EnergyMeter(30)
    meter.begin("b", None, Moment(0, NOON))
    now = 0.0
    for wait_s, power in series:
        now += wait_s
        moment = Moment(now, NOON + timedelta(seconds=now))
        meter.read("b", MeterReading(power), data.draw(st.sampled_from([READY, ASLEEP])), moment)
        if data.draw(st.booleans()):
            await energy.write(meter.take())
    await energy.write(meter.take())
    assert await energy.records() == {"b": meter.record("b")}
    for period_s in (None, HOUR_S, DAY_S):
        window = await energy.window("b", NOON, NOON + timedelta(seconds=now), period_s)
        for state, total in meter.record("b").totals.items():
            whole = Amount()
            for period in window.values():
                whole.add(period.get(state, Amount()))
            assert whole.measured_s == pytest.approx(total.measured_s, abs=1e-3)
            assert whole.wh == pytest.approx(total.wh, abs=1e-3)
    await store.close()
