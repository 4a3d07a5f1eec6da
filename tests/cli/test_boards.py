"""`boardhand boards`: the view, the table, and the live view on a real terminal (a pty)."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from board.client import MqttError, Received
from cli.boards import age, cells, lines
from cli.farm_view import FarmView
from cli.plain_text import shown, shown_log
from cli.session import LAST_OF_ALL, Session
from cli.target import resolve
from tests.cli.farm_double import AgentDouble, board_state, boardhand, clean_environment, say, stop, wait_for
from tests.cli.test_events import event
from tests.conftest import MosquittoServer


def fed(*messages: tuple[str, object]) -> FarmView:
    view = FarmView("boardhand")
    for tail, value in messages:
        view.feed(f"boardhand/{tail}", value if isinstance(value, bytes) else json.dumps(value).encode())
    return view


ONLINE = ("agent/lab-1/state", {"state": "online", "session": 1, "since": "2026-11-20T10:00:00Z"})


def test_power_is_unknown_without_its_agent() -> None:
    state = ("board/b/state", board_state(power="on", phase="ready"))
    assert fed(state).rows()[0].power == "unknown"
    assert fed(ONLINE, state).rows()[0].power == "on"
    lost = ("agent/lab-1/state", {"state": "lost", "session": 1, "since": "2026-11-20T10:00:00Z"})
    row = fed(ONLINE, state, lost).rows()[0]
    assert (row.power, row.agent_state) == ("unknown", "lost")
    back = ("agent/lab-1/state", {"state": "online", "session": 2, "since": "2026-11-20T10:00:00Z"})
    assert fed(ONLINE, state, back).rows()[0].power == "unknown", "not said again since the agent came back"


def test_job_comes_from_a_board_that_is_online() -> None:
    own = {"state": "online", "boot_id": "1", "work": "job-3"}
    state = ("board/b/state", board_state())
    assert fed(state, ("board/b/self", own)).rows()[0].job == "job-3"
    assert fed(state, ("board/b/self", own | {"state": "offline"})).rows()[0].job == ""
    assert fed(state, ("board/b/self", own), ("board/b/self", b"\xff")).rows()[0].job == ""


def test_who_holds_a_board_stands_beside_it_until_the_lease_runs_out() -> None:
    now = datetime(2026, 11, 20, 11, tzinfo=UTC)
    held = {"holder": "alice", "token": 7, "kind": "person", "expires": "2026-11-20T12:00:00Z"}
    held["ends"] = "2026-11-20T11:59:00Z"
    state, lease = ("board/b/state", board_state()), ("board/b/lease", held)
    (row,) = fed(ONLINE, state, lease).rows()
    assert cells(row, now)[-2:] == ("alice", "")
    document = row.document(now)
    assert (document["holder"], document["holder_kind"]) == ("alice", "person")
    assert document["held_until"] == "2026-11-20T11:59:00+00:00"
    assert "token" not in document, "whoever has it may switch the board"
    late = datetime(2026, 11, 20, 12, tzinfo=UTC)
    assert (row.holder(late), row.document(late)["holder"]) == ("", None)
    for gone in (b"", b"\xff"):
        (row,) = fed(ONLINE, state, lease, ("board/b/lease", gone)).rows()
        assert row.document(now)["held_until"] is None


def test_cleared_state_removes_the_board_and_a_broken_one_is_shown() -> None:
    assert fed(("board/b/state", board_state()), ("board/b/state", b"")).rows() == []
    row = fed(("board/b/state", b'{"power": "\x1b"}')).rows()[0]
    assert row.phase == "fault"
    assert row.reason.startswith("unreadable state: ")


@given(
    st.sampled_from(["board/b/state", "board/b/lease", "agent/lab-1/state", "board/../state", "board//state", "x"]),
    st.binary(max_size=80) | st.builds(lambda value: json.dumps(value).encode(), st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["power", "state", "a"]), inner),
        max_leaves=6,
    )),
)  # fmt: skip
def test_nothing_received_can_break_the_view(tail: str, payload: bytes) -> None:
    view = fed(ONLINE, ("board/b/state", board_state()), (tail, payload))
    assert len(view.rows()) <= 2


@given(st.text(max_size=600))
def test_shown_text_is_one_printable_line(text: str) -> None:
    assert shown(text).isprintable()
    assert len(shown(text)) <= 400
    assert shown_log(text).replace("\n", "").replace("\t", "").isprintable()


@pytest.mark.parametrize(
    ("since", "said"),
    [("2026-11-20T09:59:15+00:00", "45 s"), ("2026-11-20T09:00:00+00:00", "60 min"), ("2026-11-20T02:00:00Z", "8 h"),
     ("2026-11-01T10:00:00Z", "19 d"), ("2027-01-01T00:00:00Z", "0 s"), ("", "")],
)  # fmt: skip
def test_age(since: str, said: str) -> None:
    assert age(since, datetime(2026, 11, 20, 10, tzinfo=UTC)) == said


def test_table_columns_line_up() -> None:
    assert lines([("longer", "x")], ("A", "B")) == ["A       B", "longer  x"]


def test_boards_once_as_table_and_json(agent: AgentDouble, server: int) -> None:
    agent.retain("board/virt-2/state", board_state(power="on", phase="fault", reason="hub-1 lies"))
    table = boardhand("boards", port=server).stdout.splitlines()
    assert table[0].split() == ["BOARD", "POWER", "PHASE", "REASON", "SINCE", "AGENT", "HOLDER", "JOB"]
    assert table[2].split()[:5] == ["virt-2", "on", "fault", "hub-1", "lies"]
    document = json.loads(boardhand("boards", "--json", port=server).stdout)
    assert [(row["board"], row["power"], row["agent_state"]) for row in document["boards"]] == [
        ("virt-1", "off", "online"),
        ("virt-2", "on", "online"),
    ]


def test_no_boards_is_said_and_is_no_error(server: int) -> None:
    done = boardhand("boards", port=server)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no boards at 127.0.0.1" in done.stderr
    assert json.loads(boardhand("boards", "--json", port=server).stdout) == {"boards": []}


def test_watch_without_terminal_prints_changes_as_lines(agent: AgentDouble, server: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "cli", "boards", "--watch", "--json", "--for-s", "20"],
        env=clean_environment(BOARDHAND_MQTT=f"mqtt://127.0.0.1:{server}"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        assert json.loads(child.stdout.readline())["board"]["board"] == "virt-1"
        agent.retain("board/virt-1/state", board_state(power="on", phase="starting", seq=2))
        while (document := json.loads(child.stdout.readline()))["board"]["phase"] != "starting":
            pass
        assert document["board"]["power"] == "on"
        say(server, "boardhand/event/virt-1", event(3))
        assert json.loads(child.stdout.readline())["event"]["seq"] == 3
        agent.retain("board/virt-1/state", b"")
        assert json.loads(child.stdout.readline()) == {"gone": "virt-1"}
    finally:
        stop(child)
        child.stdout.close()


class Screen:
    """What a terminal shows: enough of ECMA-48 for rich's Live (cursor up, erase line, CR, LF), wide as ours."""

    def __init__(self) -> None:
        self.rows: dict[int, str] = {}
        self.row = 0
        self.column = 0

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self.row, self.column = self.row + 1, 0
            elif part.startswith("\x1b["):
                self._control(part)
            else:
                line = self.rows.get(self.row, "").ljust(self.column)
                self.rows[self.row] = line[: self.column] + part + line[self.column + len(part) :]
                self.column += len(part)

    def _control(self, part: str) -> None:
        number = int(part[2:-1]) if part[2:-1].isdigit() else 1
        if part[-1] == "A":
            self.row = max(0, self.row - number)
        elif part[-1] == "K":
            self.rows[self.row] = ""

    def text(self) -> str:
        return "\n".join(self.rows.get(n, "").rstrip() for n in range(max(self.rows, default=0) + 1))


def test_watch_redraws_in_place_on_a_terminal(agent: AgentDouble, server: int) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-m", "cli", "boards", "--watch", "--for-s", "30"],
        env=clean_environment(BOARDHAND_MQTT=f"mqtt://127.0.0.1:{server}", TERM="xterm-256color", COLUMNS="120"),
        stdout=slave,
        stderr=slave,
        stdin=slave,
    )
    os.close(slave)
    screen = Screen()

    def sees(*words: str) -> bool:
        if select.select([master], [], [], 0.1)[0]:
            screen.write(os.read(master, 65536).decode(errors="replace"))
        return all(word in screen.text() for word in words)

    try:
        wait_for(lambda: sees("boards at 127.0.0.1", "virt-1", "lab-1"), "the table is drawn")
        agent.retain("board/virt-1/state", board_state(power="on", phase="booting", seq=2))
        say(server, "boardhand/event/virt-1", event(7))
        say(server, "boardhand/event/virt-1", event(9))
        wait_for(lambda: sees("booting", "#9 phase phase=ready", "1 event missing before seq 9"), "the change is drawn")
        assert screen.text().count("boards at 127.0.0.1") == 1, "redrawn in place, not scrolled"
        child.send_signal(2)
        wait_for(lambda: sees("interrupted"), "Ctrl-C is told")
        assert child.wait(60) == 130
    finally:
        stop(child)
        os.close(master)


# --- when all that is retained has come -------------------------------------------------------------------------


class ScriptedLink:
    """A connection that was sent `messages`, and notes how long somebody waits after them."""

    def __init__(self, *messages: tuple[str, bytes], refuses: bool = False) -> None:
        self.messages = [Received(topic, payload, True) for topic, payload in messages]
        self.refuses = refuses
        self.waited: list[float | None] = []

    def subscribe(self, *topics: str) -> None:
        if self.refuses and LAST_OF_ALL in topics:
            raise MqttError("refused")

    def receive(self, timeout_s: float | None) -> Received | None:
        if self.messages:
            return self.messages.pop(0)
        self.waited.append(timeout_s)
        return None


def session_on(link: ScriptedLink) -> Session:
    session = Session(resolve({}, {}))
    session._link = link  # type: ignore[assignment]
    return session


@pytest.mark.parametrize("refuses", [False, True])
def test_without_a_mark_silence_ends_what_is_retained(*, refuses: bool) -> None:
    link = ScriptedLink(("a", b"1"), ("b", b"2"), refuses=refuses)
    assert [message.topic for message in session_on(link).retained("a", "b", quiet_s=0.3)] == ["a", "b"]
    assert link.waited == [0.3]


def test_the_mark_ends_it_at_once_and_is_not_shown() -> None:
    link = ScriptedLink(("a", b"1"), (LAST_OF_ALL, b"mosquitto version 2"), ("a", b"said later"))
    assert [message.payload for message in session_on(link).retained("a")] == [b"1"]
    assert link.waited == []


def test_a_real_server_gives_the_mark_after_all_else(mosquitto_server: Callable[..., MosquittoServer]) -> None:
    """Many more than it has in flight at once, whatever their order in its tree."""
    server = mosquitto_server(extra="allow_anonymous true\nmax_queued_messages 0\n")
    names = [f"board/b{n}/state" for n in range(150)]
    with Session(resolve({"mqtt": server.url}, {}), timeout_s=30) as session:
        for name in [*names, "zz/last"]:
            session.publish(f"boardhand/{name}", b"x" * 200, retain=True, wait=name == "zz/last")
    with Session(resolve({"mqtt": server.url}, {}), timeout_s=30) as session:
        # So long a silence would be a test that takes an hour.
        found = [m.topic for m in session.retained("boardhand/zz/#", "boardhand/board/+/state", quiet_s=3600)]
    assert found[0] == "boardhand/zz/last"
    assert set(found[1:]) == {f"boardhand/{name}" for name in names}
    assert len(found) == 151
