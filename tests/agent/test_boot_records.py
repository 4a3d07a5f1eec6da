"""Boots on disk, and what an agent answers about them."""

import asyncio
import json
import sqlite3
from collections.abc import Coroutine, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import boot_explain
from agent.boot_records import BOOTS_SCHEMA, PLACED_CHARACTERS, BootRecorder, BootStore
from agent.requests import RequestError
from agent.settings import AgentSettings
from daemon.store import Store
from netboot.boot_history import BOOTS_KEPT, BootHistory
from netboot.boot_record import MAX_REQUESTS, Boot, Outcome
from netboot.events import DhcpSeen, FileRefused, FileRequested, FileSent
from wire.codec import MAX_PAYLOAD_BYTES
from wire.netboot import NetbootReport
from wire.payloads import Response, decode, encode
from wire.phases import ErrorKind, Power

T = TypeVar("T")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MAC, ADDRESS = "52:54:00:77:00:01", "10.77.0.11"


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def run(work: Coroutine[object, object, T]) -> T:
    return asyncio.run(work)


def boot_once(recorder: BootRecorder, names: int = 1, board: str = "pi") -> None:
    recorder.power(board, Power.OFF)
    recorder.power(board, Power.ON)
    recorder.event(DhcpSeen(MAC, board, ADDRESS, "U-Boot.armv8", "REQUEST", "ACK"))
    for number in range(names):
        recorder.event(FileRefused(ADDRESS, f"name-{number}", "no such file", board, missing=True))
    recorder.event(FileRequested(board, ADDRESS, "kernel", "kernel", number=1))
    recorder.event(FileSent(board, ADDRESS, "kernel", "kernel", 9_000_000, 1.5, 3, number=1))


async def opened(path: Path) -> tuple[Store, BootRecorder]:
    store = await Store.open(path, (BOOTS_SCHEMA,))
    return store, await BootRecorder.opened(store, clock=Clock())


def test_boots_survive_a_restart_as_they_were(tmp_path: Path) -> None:
    async def work() -> None:
        store, recorder = await opened(tmp_path / "a.db")
        for _ in range(BOOTS_KEPT + 3):
            boot_once(recorder)
        recorder.registered("pi", "one")
        boot_once(recorder, board="other")
        await recorder.close()
        await store.close()
        again, second = await opened(tmp_path / "a.db")
        for board in ("pi", "other"):
            assert second.history.boots(board) == recorder.history.boots(board)
        assert [boot.number for boot in second.history.boots("pi")] == list(range(BOOTS_KEPT + 3, 3, -1))
        second.power("pi", Power.UNKNOWN)
        second.power("pi", Power.ON)
        assert second.history.boots("pi")[0].number == BOOTS_KEPT + 3, "it goes on with its boot"
        second.power("other", Power.OFF)
        assert second.history.current("other") is None, "its power went off while the agent was away"
        boot_once(second)
        assert second.history.boots("pi")[0].number == BOOTS_KEPT + 4
        await second.close()
        await again.close()
        with sqlite3.connect(tmp_path / "a.db") as db:
            assert db.execute("SELECT count(*) FROM agent_boot WHERE board = 'pi'").fetchone() == (BOOTS_KEPT,)
        db.close()

    run(work())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.sampled_from(["off", "on", "dhcp", "ask", "sent", "miss", "one", "two", "write"]), max_size=40)
)
def test_whatever_was_heard_is_read_back(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    async def work() -> None:
        path = tmp_path_factory.mktemp("boots") / "a.db"
        store, recorder = await opened(path)
        for step in steps:
            match step:
                case "off" | "on":
                    recorder.power("pi", Power(step))
                case "dhcp":
                    recorder.event(DhcpSeen(MAC, "pi", ADDRESS, "U-Boot", "DISCOVER", "OFFER"))
                case "ask":
                    recorder.event(FileRequested("pi", ADDRESS, "kernel", "kernel"))
                case "sent":
                    recorder.event(FileSent("pi", ADDRESS, "kernel", "kernel", 10, 0.1))
                case "miss":
                    recorder.event(FileRefused(ADDRESS, "ü\x1b\\", "no", "pi", missing=True))
                case "write":
                    await recorder.close()
                case boot_id:
                    recorder.registered("pi", boot_id)
        await recorder.close()
        await store.close()
        again, second = await opened(path)
        # What was under way is cut by the restart; everything else is as it was.
        assert second.history.boots("pi") == BootHistory(recorder.history.boots("pi")).boots("pi")
        assert all(r.outcome is not Outcome.UNDER_WAY for boot in second.history.boots("pi") for r in boot.requests)
        await again.close()

    run(work())


def test_what_changes_is_written_beside_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        written = asyncio.Event()
        write = BootStore.write

        async def noted(self: BootStore, boots: Iterable[Boot]) -> None:
            await write(self, boots)
            written.set()

        monkeypatch.setattr(BootStore, "write", noted)
        store, recorder = await opened(tmp_path / "a.db")
        task = asyncio.create_task(recorder.run())
        boot_once(recorder)
        async with asyncio.timeout(60):
            await written.wait()
        assert await store.run(lambda db: db.execute("SELECT count(*) FROM agent_boot").fetchone()[0]) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()

    run(work())


def test_a_disk_that_is_full_loses_nothing_in_memory(tmp_path: Path) -> None:
    async def work() -> None:
        store, recorder = await opened(tmp_path / "a.db")
        await store.run(lambda db: db.execute("ALTER TABLE agent_boot RENAME TO gone") and None)
        boot_once(recorder)
        await recorder.close()
        assert recorder.history.boots("pi")[0].files == 1
        await store.run(lambda db: db.execute("ALTER TABLE gone RENAME TO agent_boot") and None)
        await recorder.close()
        await store.close()
        again, second = await opened(tmp_path / "a.db")
        assert second.history.boots("pi") == recorder.history.boots("pi")
        await again.close()

    run(work())


def test_a_row_that_cannot_be_read_costs_itself_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        store, recorder = await opened(tmp_path / "a.db")
        boot_once(recorder)
        boot_once(recorder)
        await recorder.close()
        await store.run(lambda db: db.execute("UPDATE agent_boot SET boot = '{}' WHERE number = 1") and None)
        await store.close()
        again, second = await opened(tmp_path / "a.db")
        assert [boot.number for boot in second.history.boots("pi")] == [2]
        await again.close()

    run(work())
    assert "boot 1 of board pi cannot be read" in caplog.text


def test_the_reason_of_a_boot_timeout(tmp_path: Path) -> None:
    async def work() -> None:
        store, recorder = await opened(tmp_path / "a.db")
        assert recorder.placed("pi") is None
        recorder.power("pi", Power.OFF)
        assert recorder.placed("pi") is None
        recorder.power("pi", Power.ON)
        assert recorder.placed("pi") == "no DHCP in 1.0 s since power on"
        for number in range(9):
            recorder.event(FileRefused(ADDRESS, f"{number}" * 400, "no such file", "pi", missing=True))
        placed = recorder.placed("pi")
        assert placed is not None
        assert placed.startswith("asked for 9 names and none of them is there: 000")
        assert len(placed) <= PLACED_CHARACTERS
        await store.close()

    run(work())


# --- the request -----------------------------------------------------------------------------------------------


@pytest.fixture
def farm(tmp_path: Path) -> AgentSettings:
    (tmp_path / "Image.gz").write_bytes(b"k" * 4096)
    (tmp_path / "initrd").write_bytes(b"i" * 100)
    return AgentSettings.model_validate(
        {
            "agent": {"name": "lab", "state_dir": str(tmp_path)},
            "controllers": {"rack": {"driver": "command", "on": ["true"], "off": ["true"], "state": ["true"]}},
            "netboot": {"interface": "lo", "address": "10.77.0.1/24", "mqtt_for_boards": "10.77.0.1:1883"},
            "profiles": {
                "debian": {
                    "kernel": str(tmp_path / "Image.gz"),
                    "initrd": str(tmp_path / "initrd"),
                    "cmdline": "console=ttyAMA0",
                }
            },
            "boards": {
                "pi": {"feed": ["rack:1"], "macs": [MAC], "address": ADDRESS, "profile": "debian"},
                "plain": {"feed": ["rack:2"]},
            },
        }
    )


def ask(farm: AgentSettings, history: BootHistory, **data: Any) -> NetbootReport:
    found = run(boot_explain.answer(farm, history, data, NOON + timedelta(seconds=300)))
    response = encode(Response(transaction="t", ok=True, data=found))
    assert len(response) < MAX_PAYLOAD_BYTES
    return decode(NetbootReport, json.dumps(found).encode())


def test_what_a_board_would_be_served(farm: AgentSettings, tmp_path: Path) -> None:
    served = ask(farm, BootHistory(), board="pi").served
    assert served.problem is None
    assert (served.macs, served.address, served.server, served.profile) == ([MAC], ADDRESS, "10.77.0.1", "debian")
    kernel = str(tmp_path / "Image.gz")
    assert next((f.role, f.name, f.path, f.size_bytes, f.problem) for f in served.files) == (
        "kernel", "kernel.gz", kernel, 4096, None
    )  # fmt: skip
    assert {entry.name: entry.client.split(", ")[0] for entry in served.boot_files}["boot.scr.uimg"] == "U-Boot"
    assert "boot.scr.uimg" in {file.name for file in served.files if file.path is None}
    assert served.cmdline is not None
    assert served.cmdline.startswith("console=ttyAMA0 boardhand.board=pi")
    assert served.cmdline.endswith("boardhand.secret=…")
    assert "it boots profile debian by [boards.pi] profile" in served.why


def test_a_file_that_has_gone_is_said(farm: AgentSettings, tmp_path: Path) -> None:
    (tmp_path / "Image.gz").unlink()
    (tmp_path / "initrd").write_bytes(b"")
    files = ask(farm, BootHistory(), board="pi").served.files
    assert [(file.role, file.problem) for file in files[:2]] == [
        ("kernel", "No such file or directory"), ("initrd", "is empty")
    ]  # fmt: skip


def test_boards_that_are_served_nothing(farm: AgentSettings) -> None:
    assert (
        ask(farm, BootHistory(), board="plain").served.problem == "it is given nothing: [boards.plain] has no profile"
    )
    without = farm.model_copy(update={"netboot": None})
    assert "no [netboot] table" in str(ask(without, BootHistory(), board="pi").served.problem)


@pytest.mark.parametrize(
    ("data", "kind", "key"),
    [
        ({}, ErrorKind.BAD_REQUEST, "board"),
        ({"board": "nope"}, ErrorKind.UNKNOWN_BOARD, "board"),
        ({"board": "pi", "boots": 0}, ErrorKind.BAD_REQUEST, "boots"),
        ({"board": "pi", "boots": 11}, ErrorKind.BAD_REQUEST, "boots"),
        ({"board": "pi", "boots": True}, ErrorKind.BAD_REQUEST, "boots"),
        ({"board": "pi", "after": 3}, ErrorKind.BAD_REQUEST, "after"),
        ({"board": "pi", "after": "9" * 30}, ErrorKind.BAD_REQUEST, "after"),
    ],
)
def test_requests_that_are_wrong(farm: AgentSettings, data: dict[str, Any], kind: ErrorKind, key: str) -> None:
    with pytest.raises(RequestError) as caught:
        run(boot_explain.answer(farm, BootHistory(), data, NOON))
    assert (caught.value.info.kind, caught.value.info.key) == (kind, key)


def test_boots_are_told_with_their_place(farm: AgentSettings, tmp_path: Path) -> None:
    async def heard() -> BootHistory:
        store, recorder = await opened(tmp_path / "a.db")
        boot_once(recorder)
        boot_once(recorder)
        recorder.event(DhcpSeen("52:54:00:99:00:01", None, None, "PXEClient", "DISCOVER"))
        await store.close()
        return recorder.history

    report = ask(farm, run(heard()), board="pi", boots=1)
    (boot,) = report.boots
    assert (boot.number, boot.cause, boot.files, boot.size_bytes, boot.resent) == (2, "power", 1, 9_000_000, 3)
    assert boot.missing == {"name-0": 1}
    assert (boot.diagnosis.place, boot.diagnosis.stopped) == ("kernel-silent", True)
    assert [(r.name, r.outcome.value, r.mb_per_s) for r in boot.requests] == [
        ("REQUEST", "answered", None), ("name-0", "missing", None), ("kernel", "sent", 6.0)
    ]  # fmt: skip
    assert [stranger.mac for stranger in report.strangers] == ["52:54:00:99:00:01"]
    assert report.next is None


def test_a_long_answer_comes_in_parts_that_fit_a_message(farm: AgentSettings, tmp_path: Path) -> None:
    async def heard() -> BootHistory:
        store, recorder = await opened(tmp_path / "a.db")
        for _ in range(BOOTS_KEPT):
            boot_once(recorder)
            for number in range(MAX_REQUESTS):
                recorder.event(FileRefused(ADDRESS, f"{number}" + "\\" * 500, "\\" * 500, "pi", missing=True))
        await store.close()
        return recorder.history

    history, numbers, after = run(heard()), [], ""
    while True:
        report = ask(farm, history, board="pi", after=after)
        numbers += [boot.number for boot in report.boots]
        if report.next is None:
            break
        after = report.next
    assert numbers == list(range(BOOTS_KEPT, 0, -1))
