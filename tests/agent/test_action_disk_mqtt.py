"""A whole agent whose disk is full: everybody is answered, boards are switched, and it is whole when there is room."""

import errno
import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.agent.bench import DEADLINE_S, Bench, result_of
from tests.agent.test_flash_mqtt import answered, ask, bench, halfway, outlet, stage

__all__ = ["bench"]

MOUNTED = 'mount -t tmpfs -o size=4m tmpfs "$1" && shift && exec "$@"'
FULL = (
    'mount -t tmpfs -o size=4m tmpfs "$1" && cp "$2" "$1" && '
    '{ cat /dev/zero >"$1/filler" 2>/dev/null; shift 2; exec "$@"; }'
)
ALERT = "boardhand/agent/lab/alert/store"


class Disk:
    """The agent's state folder: a file system of 4 MiB in a mount namespace of the agent's."""

    def __init__(self, bench):
        self.bench = bench
        self.state = bench.folder / "state"
        self.state.mkdir()

    def command(self, script, *words):
        agent = [sys.executable, "-m", "agent", "--settings", str(self.bench.settings), "--log-level", "DEBUG"]
        mounts = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(self.state)]
        return [*mounts, *words, *agent]

    def start(self):
        with (self.bench.folder / "agent.log").open("ab") as log:
            self.bench.process = subprocess.Popen(self.command(MOUNTED), stdout=log, stderr=log)

    @property
    def inside(self):
        """The state folder as the agent sees it."""
        return Path(f"/proc/{self.bench.process.pid}/root{self.state}")

    @property
    def filler(self):
        return self.inside / "filler"

    def fill(self):
        with self.filler.open("wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise


def until(what, text):
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end, text
        time.sleep(0.05)


def last_alert(heard):
    """The last word on the agent's disk."""
    said = [m.get("payload") for m in heard.history if m["topic"] == ALERT]
    return said[-1] if said else None


@pytest.fixture
def disk(bench):
    disk = Disk(bench)
    bench.start = disk.start
    return disk


def test_a_flash_that_ends_on_a_full_disk_is_answered_and_the_board_is_free(bench, disk):
    heard = bench.ready()
    Path(f"{bench.chip}.hang").touch()
    ask(bench, "flash", "t1", image="good.img")
    heard.wait(stage("write"))
    halfway(bench)
    disk.fill()
    Path(f"{bench.chip}.hang").unlink()
    alert, said = heard.wait_all(lambda m: m["topic"] == ALERT, answered("flash", "t1"))
    assert "disk is full): nothing is stored" in alert["payload"]["what"]
    assert "the image was written and is whole, and the board is left in mode flash" in str(said["payload"]["error"])
    assert bench.chip.read_bytes() == bench.image.read_bytes()
    # Whoever asks again is not left waiting, and what comes next is refused for its reason and not as busy.
    ask(bench, "flash", "t1", image="good.img")
    assert heard.wait(answered("flash", "t1"))["payload"] == said["payload"]
    ask(bench, "flash", "t2", image="good.img")
    refused = heard.wait(answered("flash", "t2"))["payload"]["error"]
    assert (refused["kind"], "mend the disk" in refused["message"]) == ("internal", True), refused
    assert bench.process.poll() is None, (bench.folder / "agent.log").read_text()[-4000:]
    disk.filler.unlink()
    end = time.monotonic() + DEADLINE_S
    number = 3
    while True:
        ask(bench, "flash", f"t{number}", image="good.img")
        if heard.wait(answered("flash", f"t{number}"))["payload"]["ok"]:
            break
        assert time.monotonic() < end
        number += 1
    until(lambda: last_alert(heard) in (None, ""), "the alert stays")


PHASE = (
    "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=60); "
    "print(*db.execute(\"SELECT phase FROM agent_board WHERE board = 'pi'\").fetchone())"
)


def phase_on_disk(disk):
    # From within: SQLite follows /proc/PID/root to the file of that name that is ours.
    enter = ["nsenter", "--user", "--mount", "--preserve-credentials", "-t", str(disk.bench.process.pid)]
    command = [*enter, sys.executable, "-c", PHASE, str(disk.state / "agent.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    return done.stdout.strip()


def power(bench, heard, **command):
    bench.publish("boardhand/board/pi/power/set", json.dumps(command))
    return heard.wait(result_of("pi", command.get("id")))["payload"]


def test_boards_are_switched_on_a_full_disk_and_what_they_came_to_is_stored_when_there_is_room(bench, disk):
    heard = bench.ready()
    assert power(bench, heard, power="on", id="before")["ok"]
    assert phase_on_disk(disk) == "starting"
    # One that was begun before, and cannot be stored: who asks again is told the same.
    (bench.outlets / "slow").write_text("2")
    bench.publish("boardhand/board/pi/power/set", json.dumps({"power": "cycle", "id": "long"}))
    until((bench.outlets / "begun").exists, "the cycle has not begun")
    disk.fill()
    (bench.outlets / "slow").unlink()
    said = heard.wait(result_of("pi", "long"))["payload"]
    assert said["ok"], said
    assert power(bench, heard, power="cycle", id="long") == said
    said = power(bench, heard, power="off")
    assert (said["ok"], said["power"], outlet(bench, "pi")) == (True, "off", "off"), said
    until(lambda: last_alert(heard), "no alert")
    assert "disk is full): nothing is stored" in last_alert(heard)["what"]
    # Once-only cannot be promised; what was promised before still holds.
    assert power(bench, heard, power="on", id="new")["error"]["kind"] == "internal"
    bench.publish("boardhand/board/pi/power/set", json.dumps({"power": "on", "id": "before"}))
    assert heard.wait(result_of("pi", "before"))["payload"]["power"] == "on", "the stored result"
    assert outlet(bench, "pi") == "off"
    # A request whose handler has to store is answered, too.
    refuse = {"transaction": "r1", "data": {"mac": "52:54:00:00:00:99"}}
    bench.publish("boardhand/agent/lab/request/refuse-board", json.dumps(refuse))
    refused = heard.wait(answered("refuse-board", "r1"))["payload"]["error"]
    assert (refused["kind"], "make room on its disk" in refused["message"]) == ("internal", True), refused
    assert phase_on_disk(disk) == "starting"
    disk.filler.unlink()
    until(lambda: last_alert(heard) in (None, ""), "the alert stays")
    until(lambda: phase_on_disk(disk) == "off", "nobody has touched the board since, and it is stored")
    assert power(bench, heard, power="on", id="new")["ok"], "the refused command was not done, and may be given again"
    assert bench.process.poll() is None


def test_an_agent_that_starts_on_a_full_disk_says_so_in_one_line(bench, disk):
    bench.start = functools.partial(Bench.start, bench)  # on a disk that stays
    bench.ready()
    bench.end(signal.SIGTERM)
    saved = (disk.state / "agent.db").rename(bench.folder / "agent.db")
    ended = subprocess.run(
        disk.command(FULL, str(saved)), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ended.returncode == 1
    said = [line for line in ended.stderr.splitlines() if " DEBUG " not in line]
    assert len(said) == 1, ended.stderr
    assert said[0].startswith(f"boardhand agent: {disk.state}/agent.db: cannot be ")
    assert "make room on " in said[0]
