"""Write, expect and run over MQTT, without MQTT: the console is a pty, the shell on it is real."""

import asyncio
import base64
import contextlib
import itertools
import os
import pty
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.console import console_actions
from agent.console.console_actions import Consoles
from agent.console.pattern_search import PlainSearch, RegexSearch
from agent.console.writer_place import Binding, Writer
from agent.requests import RequestError
from tests.agent.console.boards import until
from wire.phases import ErrorKind


class Bench:
    def __init__(self, farm):
        self.desk = Consoles(farm.desk.consoles, farm.desk.shells)
        self.console = farm.desk.consoles["b1"]
        self.told = []

    def ask(self, verb, **data):
        work = getattr(console_actions, verb)
        return work(self.desk, "b1", data, lambda *stage: self.told.append(stage))


@pytest.fixture
async def bench(farm, board):
    one = board()
    found = Bench(await farm({"b1": one.path}))
    await until("open", lambda: found.console.port.state.is_open)
    found.board = one
    return found


async def test_write_types_text_and_bytes_and_gives_the_place_back(bench):
    person = Writer("a person")
    bench.console.type(person, b"x")
    assert (await bench.ask("write", text="äb\r"))["bytes"] == 4
    assert await bench.board.hears(5) == b"x" + "äb\r".encode()
    await bench.ask("write", base64=base64.b64encode(b"\x00\xff").decode(), char_delay_ms=2)
    assert await bench.board.hears(2) == b"\x00\xff"
    assert bench.console.place.holder is None
    await bench.ask("write", **{"break": True})


async def test_a_line_that_takes_nothing_more_is_told_and_the_place_is_free_again(bench, monkeypatch):
    monkeypatch.setattr(console_actions, "STUCK_S", 0.2)
    await bench.ask("write", text="x" * console_actions.MAX_WRITE_BYTES)  # into the queue
    with pytest.raises(RequestError, match="its line takes nothing more") as stuck:
        await bench.ask("write", text="x" * console_actions.MAX_WRITE_BYTES)
    assert stuck.value.info.kind is ErrorKind.UNREACHABLE
    assert bench.console.place.holder is None


@pytest.mark.parametrize(
    ("verb", "data", "key"),
    [
        ("write", {}, "text"),
        ("write", {"text": 5}, "text"),
        ("write", {"base64": "?"}, "base64"),
        ("write", {"text": "x" * 70_000}, "text"),
        ("write", {"text": "x", "char_delay_ms": -1}, "char_delay_ms"),
        ("expect", {}, "patterns"),
        ("expect", {"patterns": [""]}, "patterns"),
        ("expect", {"patterns": ["*"]}, "patterns"),
        ("expect", {"patterns": ["("], "regex": True}, "patterns"),
        ("expect", {"patterns": ["x{99999999999}"], "regex": True}, "patterns"),
        ("expect", {"patterns": "x", "for_s": True}, "for_s"),
        ("run", {"command": " "}, "command"),
        ("run", {"command": "x", "for_s": 1e9}, "for_s"),
    ],
)
async def test_what_is_wrong_is_told_with_its_key(bench, verb, data, key):
    with pytest.raises(RequestError) as caught:
        await bench.ask(verb, **data)
    assert (caught.value.info.kind, caught.value.info.key) == (ErrorKind.BAD_REQUEST, key)


async def test_a_board_without_a_console_and_a_console_that_is_kept(bench):
    with pytest.raises(RequestError, match="no console"):
        await console_actions.write(bench.desk, "b2", {"text": "x"}, print)
    bench.console.take_place(Writer("job-1", keeps=True))
    with pytest.raises(RequestError, match="job-1 keeps the console"):
        await bench.ask("write", text="x")
    with pytest.raises(RequestError, match="job-1 keeps the console"):
        await bench.ask("run", command="true")


@pytest.mark.parametrize("regex", [False, True])
async def test_expect_says_what_matched_and_what_came_before(bench, regex):
    patterns = [r"never\d", r"U-Boot \d+"] if regex else ["never", "U-Boot *01"]
    task = asyncio.ensure_future(bench.ask("expect", patterns=patterns, regex=regex, send="reset\r"))
    assert await bench.board.hears(6) == b"reset\r"
    await bench.board.says(b"noise\xff\r\nU-Bo")
    await bench.board.says(b"ot 2024.01\r\n")
    answer = await asyncio.wait_for(task, 60)
    assert answer["index"] == 1
    assert answer["matched"] == patterns[1]
    assert answer["match"].startswith("U-Boot 20")
    assert answer["before"] == "noise�\r\n"
    assert bench.console.place.holder is None


async def test_expect_in_vain_shows_what_was_said(bench):
    task = asyncio.ensure_future(bench.ask("expect", patterns="login:", for_s=1.0))
    await bench.board.says(b"panic\r\n")
    answer = await task
    assert (answer["matched"], answer["before"]) == (None, "panic\r\n")
    assert bench.console.readers == 0


async def test_an_expression_that_never_ends_holds_up_nobody(bench):
    task = asyncio.ensure_future(bench.ask("expect", patterns=r"(a+)+$", regex=True, for_s=1.0))
    await asyncio.sleep(0)
    await until("listens", lambda: bench.console.readers)
    await bench.board.says(b"a" * 60 + b"!\r\n")
    for _ in range(10):  # on this loop, it would come to no end here
        await asyncio.sleep(0.01)
    assert (await task)["matched"] is None


async def test_searches_bound_what_they_keep():
    plain = PlainSearch(["begin*end"])
    plain.feed(b"begin\r\nend ")
    plain.feed(b"x" * 200_000 + b"begin ..")
    plain.feed(b". end")
    found = await plain.found()
    assert (found.index, found.match) == (0, b"begin ... end")
    assert len(found.before) < 70_000
    regex = await RegexSearch.begun(["z"])
    await regex.close()
    await regex.close()


@given(st.text("ab\r\n", max_size=60), st.lists(st.integers(0, 60)), st.sampled_from(["a", "ab", "a*b", "b*a*b"]))
def test_a_match_is_the_same_in_whatever_pieces_it_comes(text, cuts, pattern):
    async def found(pieces):
        search = PlainSearch([pattern])
        for piece in pieces:
            search.feed(piece)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                return await search.found()
        return None

    said, places = text.encode(), sorted({0, *cuts, 60})
    pieces = [said[begin:end] for begin, end in itertools.pairwise(places)]
    assert asyncio.run(found(pieces)) == asyncio.run(found([said]))


async def test_a_flood_of_small_pieces_is_searched_once():
    """Searched as a whole at each piece, a full window would take the event loop's time for a second and more."""
    search = PlainSearch(["login:*never"] * 20)
    search.feed(b"a line of what a kernel says, and so on\r\n" * 2000)
    began = time.process_time()
    for _ in range(500):
        search.feed(b"a few bytes more\r\n")
    assert time.process_time() - began < 1.0


class ShellOnPty:
    """A real shell whose terminal is the other end of the console's port."""

    def __init__(self, master, *command):
        self.console = master
        self.pid, self.tty = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, {"PATH": os.environ["PATH"], "PS1": "$ ", "TERM": "dumb"})  # noqa: S606
        loop = asyncio.get_running_loop()
        loop.add_reader(self.tty, self._move, self.tty, master)
        loop.add_reader(master, self._move, master, self.tty)

    def _move(self, source, target):
        with contextlib.suppress(OSError):
            os.write(target, os.read(source, 4096))

    def close(self):
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.tty)
        loop.remove_reader(self.console)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.tty)


async def test_run_answers_with_output_and_exit_code(bench):
    shell = ShellOnPty(bench.board.master, "busybox", "sh", "-i")
    try:
        answer = await bench.ask("run", command="echo 'a  b'; echo c >&2; (exit 41)")
        assert (answer["exit_code"], answer["output"], answer["problem"]) == (41, "a  b\nc\n", None)
        assert ("shell",) in bench.told
        many = await bench.ask(
            "run",
            command=f"i=0; while [ $i -lt 3000 ]; do echo $i.{'x' * 36}; i=$((i+1)); done",
        )
        assert many["left_out_bytes"] > 0
        assert many["output"].startswith("0.x")
        assert many["output"].endswith("x\n")
        assert "bytes left out" in many["output"]
        late = await bench.ask("run", command="sleep 60", for_s=0.3)
        assert (late["exit_code"], late["problem"]) == (None, "timed out after 0.3 s")
        task = asyncio.ensure_future(bench.ask("run", command="echo begun; sleep 61"))
        await until("it runs", lambda: ("running", None, "begun") in bench.told)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bench.console.place.holder is None
        assert (await bench.ask("run", command="true"))["exit_code"] == 0
    finally:
        shell.close()


async def test_a_lease_binds_the_shell_where_writers_are_bound(farm, board):
    found = await farm({"b1": {"device": board().path, "writers": "lease"}})
    bench = Bench(found)
    await until("open", lambda: bench.console.port.state.is_open)
    found.leases["b1"] = Binding("alice", 7)
    with pytest.raises(RequestError, match="leased by alice"):
        await bench.ask("run", command="true")
    await bench.ask("write", text="x", token=7)
