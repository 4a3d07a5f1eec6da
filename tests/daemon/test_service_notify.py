"""What systemd is told of a daemon: by a socket of the test's, as systemd's is one."""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from daemon.service_notify import ServiceNotify, StopEvent

PATIENCE_S = 60.0
DAEMON = """
import asyncio, signal, sys
from daemon.foreground import run_daemon
from daemon.settings_file import FileSettings

async def serve(settings, stop):
    if sys.argv[1:] == ["hang"]:
        asyncio.get_running_loop().call_later(0.3, lambda: signal.pause())
    await stop.wait()

sys.exit(run_daemon("test", "a daemon", lambda path: FileSettings(), serve, ["--settings", "none"]))
"""


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        own.bind(str(tmp_path / "notify"))
        own.settimeout(PATIENCE_S)
        yield own


@pytest.fixture
def start(manager):
    children = []

    def begin(*arguments, **environment):
        child = subprocess.Popen(
            [sys.executable, "-c", DAEMON, *arguments],
            env=os.environ | {"NOTIFY_SOCKET": manager.getsockname()} | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield begin
    for child in children:
        child.kill()
        child.communicate(timeout=PATIENCE_S)


def words(manager):
    return manager.recv(4096).decode().split("\n")


def test_ready_alive_and_stopping_of_a_real_process(manager, start):
    child = start(WATCHDOG_USEC="300000")
    told = set()
    beats = 0
    while beats < 4 or "READY=1" not in told:
        said = words(manager)
        told.update(said)
        beats += said == ["WATCHDOG=1"]
    child.send_signal(signal.SIGHUP)  # must not end it
    child.send_signal(signal.SIGTERM)
    while "STOPPING=1" not in told:
        told.update(words(manager))
    assert child.wait(PATIENCE_S) == 0


def test_a_loop_that_hangs_beats_no_more(manager, start):
    start("hang", WATCHDOG_USEC="150000")
    while "READY=1" not in words(manager):
        pass
    manager.settimeout(2)
    with pytest.raises(TimeoutError):
        list(iter(lambda: words(manager), None))


def test_an_abstract_socket_is_written_with_an_at():
    name = f"bh-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        own.bind(f"\0{name}")
        own.settimeout(PATIENCE_S)
        ServiceNotify(f"@{name}").ready()
        assert own.recv(100).startswith(b"READY=1\n")


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, None),  # nobody to tell
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}, 3.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 3.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "3000000"}, None),
    ],
)
def test_the_watchdog_counts_for_the_process_that_is_told(environment, watchdog_s):
    assert ServiceNotify.from_environment(environment, pid=7).watchdog_s == watchdog_s


async def test_without_systemd_nothing_is_said_and_nobody_beats():
    silent = ServiceNotify(None)
    silent.ready()
    async with asyncio.timeout(PATIENCE_S):
        await silent.beat()


def test_a_manager_that_is_gone_is_said_once(tmp_path, caplog):
    line = ServiceNotify(str(tmp_path / "gone"))
    line.ready()
    line.stopping()
    assert len(caplog.records) == 1


async def test_ready_is_said_at_the_first_wait_alone():
    told = []
    stop = StopEvent(lambda: told.append(1))
    assert told == []
    stop.set()
    assert await stop.wait()
    assert await stop.wait()
    assert told == [1]
