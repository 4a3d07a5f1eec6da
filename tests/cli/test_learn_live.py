"""What `boardhand learn` draws on a terminal."""

import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from cli.exits import Exit
from cli.learn_live import Row, clock, cut, picture, rows_of
from tests.cli.farm_double import DEADLINE_S, clean_environment, wait_for
from tests.cli.learn_double import MAC, STATE, LearnDouble, heard, place


def test_each_outlet_is_a_row():
    assert rows_of(STATE) == [
        Row("pdu:1", "on 12 s", "3.2 W, 00:00:01 registers, pi, link eth1", "", "on"),
        Row("pdu:2", "off", "(console ttyUSB0 U-Boot)", "board, 99.96 % with b:1", "board"),
        Row("pdu:3", "off", "", "open: nothing was heard\\x1b[2J", "open"),
        Row("pdu:4", "broken", "", "it is stuck", "fault"),
        Row("pdu:5", "waits", "", "", ""),
        Row("pdu:6", "going on", "", "open: ", "open"),
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [("", "DHCP 00:00:01"), ("PXEClient", "DHCP 00:00:01 PXEClient"), ("fetches a.img", "00:00:01 fetches a.img"),
     ("10.0.0.7", "00:00:01 neighbour")],
)  # fmt: skip
def test_what_a_mac_address_was_heard_by(words, text):
    state = {"outlets": [place(1, "listening", 1, heard=[heard("mac", MAC, words)])]}
    assert rows_of(state)[0].seen == text


@pytest.mark.parametrize("size", [(80, 24), (160, 50), (40, 10), (20, 4), (10, 2), (1, 1)])
@pytest.mark.parametrize("outlets", [0, 1, 6, 200])
def test_no_line_is_longer_than_the_terminal_and_none_is_too_many(size, outlets):
    places = (STATE["outlets"] * 40)[:outlets]
    lines = picture({**STATE, "outlets": places}, ["x" * 300] * 6, "stopping", 61.0, size)
    assert 1 <= len(lines) <= size[1]
    assert all(line.cell_len <= size[0] for line in lines)
    if size >= (80, 24):
        assert lines[-1].plain.startswith(f"{outlets} outlets, ")
        assert "1:01 gone, about 3:07 left" in lines[-1].plain
        assert lines[-2].plain == "stopping"


def test_of_more_rows_than_lines_those_stay_that_matter_now():
    rows = [Row(f"pdu:{number}", "", "", "", "board") for number in range(30)]
    rows[7] = rows[7]._replace(kind="on")
    rows[25] = rows[25]._replace(kind="fault")
    rows[26] = rows[26]._replace(kind="")
    kept, rest = cut(rows, 5)
    assert [row.outlet for row in kept] == ["pdu:0", "pdu:7", "pdu:25", "pdu:26"]
    assert rest == "… 26 more: 26 known"
    assert cut(rows, 30) == (rows, "")


def test_an_agent_of_before_that_tells_no_outlets_is_drawn_too():
    lines = picture({"rows": []}, ["   1.0 s  pdu:1: listening"], "", 3.0, (80, 24))
    assert "time left unknown" in lines[-1].plain
    assert clock(3725) == "1:02:05"


class Terminal:
    """A pseudo-terminal on which a command runs: what it was sent, and its keys."""

    def __init__(self, *words, port):
        self.text = ""
        master, slave = pty.openpty()
        self._master = master
        environment = clean_environment(
            BOARDHAND_MQTT=f"mqtt://127.0.0.1:{port}", TERM="xterm", COLUMNS="80", LINES="24"
        )
        command = [sys.executable, "-m", "cli", *words]
        self.child = subprocess.Popen(
            command, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            close_fds=True,
        )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read, name="terminal")
        self._reader.start()

    def _read(self):
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the last of those who had it open has ended
                return
            if not data:
                return
            self.text += data.decode(errors="replace")

    def __enter__(self):
        return self

    def end(self):
        """Wait until all that it said is read."""
        self._reader.join(DEADLINE_S)

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        os.close(self._master)


def test_on_a_terminal_a_table_is_drawn_and_ctrl_c_stops_and_says_what_was_put_back(server):
    with LearnDouble(server) as agent, Terminal("learn", port=server) as screen:
        wait_for(lambda: "6 outlets, 1 on, 1 board found" in screen.text, "the table is drawn", 60)
        screen.child.send_signal(signal.SIGINT)
        code = screen.child.wait(60)
        screen.end()
        assert agent.asked.count("stop") == 1
    assert code == Exit.INTERRUPTED
    drawn, _, after = screen.text.rpartition("\x1b[?1049l")
    assert "\x1b[?1049h" in drawn
    assert "registers, pi" in drawn
    assert "stopping; the outlets go back" in drawn
    assert "stopped before its end: somebody stopped it" in after
    assert "as found: rack-pdu:3 off" in after
    assert "\x1b[?25h" in screen.text, "the cursor is there again"
    assert "Traceback" not in screen.text


def test_ctrl_c_once_more_does_not_wait_for_the_agent(server):
    with LearnDouble(server) as agent, Terminal("learn", port=server) as screen:
        agent.stubborn = True
        wait_for(lambda: "6 outlets, 1 on, 1 board found" in screen.text, "the table is drawn", 60)
        screen.child.send_signal(signal.SIGINT)
        wait_for(lambda: "stop" in agent.asked, "it asks the agent to stop", 60)
        screen.child.send_signal(signal.SIGINT)
        code = screen.child.wait(60)
        screen.end()
    assert code == Exit.INTERRUPTED
    assert "agent lab-1 still puts the outlets back; 'boardhand learn --last' says when it has" in screen.text
    assert "\x1b[?1049l" in screen.text
