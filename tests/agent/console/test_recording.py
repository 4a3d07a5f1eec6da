"""What is recorded is found again: by boot, time and text; after a kill -9, with a full disk, and bounded."""

import asyncio
import resource
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.console import recorder as recorder_module
from agent.console.recorder import Recorder
from agent.console.recording import (
    LINE_BYTES,
    Cursor,
    Query,
    Record,
    RecordKind,
    Segment,
    boots,
    parts_of,
    records,
    search,
    segments,
)

ALL = {"most_bytes": 1 << 30, "most_read_bytes": 1 << 30}


def write(folder, number, boot, *chunks, at_us=1_000_000, kind=RecordKind.DATA):
    folder.mkdir(exist_ok=True)
    path = Segment.named(folder, number, boot, at_us).path
    path.write_bytes(b"".join(Record(at_us + n * 1_000_000, kind, c).encoded() for n, c in enumerate(chunks)))
    return path


def texts(page):
    return [line.data for line in page.lines]


def test_lines_have_the_time_of_their_first_byte(tmp_path):
    write(tmp_path, 1, 0, b"on", b"e\r\ntw", b"o\r\nthree")
    page = search(tmp_path, Query(), **ALL)
    assert [(line.at_us, line.data) for line in page.lines] == [
        (1_000_000, b"one"), (2_000_000, b"two"), (3_000_000, b"three")]  # fmt: skip
    assert page.next is None


def test_lines_go_on_over_segments_and_boots_are_told_apart(tmp_path):
    write(tmp_path, 1, 0, b"a\r\nb")
    write(tmp_path, 2, 0, b"c\r\n", at_us=9_000_000)
    write(tmp_path, 3, 1, b"d\r\n", at_us=12_000_000)
    assert texts(search(tmp_path, Query(), **ALL)) == [b"a", b"bc", b"d"]
    assert texts(search(tmp_path, Query(boot=1), **ALL)) == [b"d"]
    assert texts(search(tmp_path, Query(since_us=10_000_000), **ALL)) == [b"d"]
    assert [boot.number for boot in boots(tmp_path)] == [0, 1]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("kernel", [b"Kernel panic"]), ("k*panic", [b"Kernel panic"]), ("panic*k", []), ("*", [b"Kernel panic", b"x\xff"]),
     ("(.*)+$", [])],
)  # fmt: skip
def test_grep(tmp_path, pattern, found):
    write(tmp_path, 1, 0, b"Kernel panic\r\nx\xff\r\n")
    assert texts(search(tmp_path, Query(parts=parts_of(pattern)), **ALL)) == found


@given(st.binary(max_size=300), st.integers(0, 320))
def test_a_record_that_was_cut_ends_its_segment(tmp_path_factory, noise, cut):
    folder = tmp_path_factory.mktemp("recording")
    path = write(folder, 1, 0, b"whole\n", b"also\n")
    good = path.read_bytes()
    path.write_bytes((good + noise)[: min(cut, len(good) + len(noise))] if cut < len(good) else good + noise)
    for end, record in records(path):
        assert end <= path.stat().st_size
        assert len(record.data) <= 1 << 20
    search(folder, Query(), **ALL)


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 200))
def test_pages_are_the_whole(tmp_path_factory, chunks, most):
    folder = tmp_path_factory.mktemp("recording")
    chunks = [chunk + b"\n" for chunk in chunks]
    write(folder, 1, 0, *chunks[:10])
    write(folder, 2, 0, *chunks[10:])
    whole = texts(search(folder, Query(), **ALL))
    found, after, rounds = [], None, 0
    while rounds < 200:
        page = search(folder, Query(after=after), most_bytes=most, most_read_bytes=10_000)
        found += texts(page)
        after = page.next
        rounds += 1
        if after is None:
            break
        after = Cursor.parse(str(after))
    assert found == whole


def test_a_line_without_end_is_shown_in_pieces_and_pages_end(tmp_path):
    write(tmp_path, 1, 0, *[b"\xaa" * 1000] * 100)
    page = search(tmp_path, Query(), most_bytes=10_000, most_read_bytes=1 << 30)
    assert page.next is not None
    assert max(map(len, texts(page))) <= LINE_BYTES


@pytest.mark.parametrize("text", ["", "1", "a:b", "1:-2", "99999999999:1"])
def test_a_cursor_of_somebody_else(text):
    with pytest.raises(ValueError, match="no place"):
        Cursor.parse(text)


@pytest.fixture
async def recorder(tmp_path):
    """Makes recorders on one folder: `await make(limit_bytes)`."""
    made = []

    async def make(limit_bytes=1 << 20):
        troubles = []
        one = Recorder(tmp_path / "consoles", limit_bytes, troubles.append)
        one.troubles = troubles
        task = asyncio.create_task(one.run())
        made.append((one, task))
        return one

    yield make
    for one, task in made:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.close()


async def lines(recorder, board="b1", **query):
    page = await recorder.search(board, Query(**query))
    found = page.lines
    while page.next is not None:
        page = await recorder.search(board, Query(**query, after=page.next))
        found += page.lines
    return [line.data for line in found]


async def test_what_was_said_is_there_after_a_restart(recorder, tmp_path):
    first = await recorder()
    first.data("b1", b"one\n")
    first.new_boot("b1")
    first.data("b1", b"two\n")
    assert await lines(first) == [b"one", b"two"]
    second = await recorder()  # as after a kill -9: the first was never closed
    second.data("b1", b"three\n")
    assert await lines(second) == [b"one", b"two", b"three"]
    assert [boot.number for boot in await second.boots("b1")] == [0, 1]
    modes = {segment.path.stat().st_mode & 0o777 for segment in segments(tmp_path / "consoles" / "b1")}
    assert modes == {0o600}


async def test_it_is_bounded_and_the_oldest_go(recorder, tmp_path):
    one = await recorder(256 * 1024)
    for n in range(400):
        one.data("b1", b"%06d " % n * 400 + b"\n")  # 2800 bytes each
        if n % 20 == 0:
            await one._write()
    found = await lines(one)
    size = sum(path.stat().st_size for path in (tmp_path / "consoles" / "b1").iterdir())
    assert size <= 256 * 1024
    assert found[-1].startswith(b"000399")
    assert not found[0].startswith(b"000000")


async def test_a_board_that_restarts_all_the_time_makes_no_heap_of_files(recorder, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "SEGMENTS_MOST", 20)
    one = await recorder()
    for n in range(100):
        one.new_boot("b1")
        one.data("b1", b"boot %d\n" % n)
    assert (await lines(one))[-1] == b"boot 99"
    assert len(segments(tmp_path / "consoles" / "b1")) == 20


async def test_a_full_disk_is_said_once_and_what_is_missing_is_counted(recorder, monkeypatch, caplog):
    monkeypatch.setattr(recorder_module, "RETRY_S", 0.05)
    one = await recorder()
    one.data("b1", b"before\n")
    assert await lines(one) == [b"before"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # the kernel refuses every byte
    try:
        deadline = time.monotonic() + 60
        while not one.troubles and time.monotonic() < deadline:
            one.data("b1", b"lost\n")
            await asyncio.sleep(0.02)
        for _ in range(10):
            one.data("b1", b"lost\n")
            await one._write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    one.data("b1", b"after\n")
    found = await lines(one)
    assert one.troubles[0] == "file too large"
    assert len(one.troubles) == 2
    assert one.troubles[1] is None
    assert sum("cannot be recorded" in record.message for record in caplog.records) == 1
    assert found[0] == b"before"
    assert found[-1] == b"after"
    assert any(b"bytes are missing here" in line for line in found)
    assert b"lost" not in found


async def test_a_disk_that_is_slower_than_the_board(recorder, monkeypatch):
    monkeypatch.setattr(recorder_module, "PENDING_BYTES", 10_000)
    one = await recorder()
    for _ in range(20):
        one.note("b1", "x" * 1000)
    pending = one._pending["b1"]
    assert pending.size <= 12_000
    assert pending.lost >= 8_000
    found = await lines(one)
    assert b"bytes are missing here" in found[0]
