"""The private Mosquitto: its configuration, and what a kill -9 leaves of what it has acknowledged."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from board.client import MqttConnection
from cli import private_mosquitto
from cli.exits import CliError, Exit
from tests.cli.farm_double import accepts, stop, wait_for


@contextmanager
def started(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(private_mosquitto.prepare(folder, folder / "mosquitto.log", port))
    try:
        wait_for(lambda: accepts(port), "the private Mosquitto accepts connections")
        yield child
    finally:
        stop(child)


def test_kill_9_right_after_the_last_acknowledgement_loses_at_most_that_round(tmp_path: Path) -> None:
    port = private_mosquitto.free_port()
    with started(tmp_path, port) as child:
        with MqttConnection("127.0.0.1", port, "sleeper", clean=False) as sleeper:
            sleeper.subscribe("queued/#")
        with MqttConnection("127.0.0.1", port, "writer") as writer:
            for n in range(100):
                writer.publish(f"state/{n}", f"{n}".encode(), retain=True)
                writer.publish(f"queued/{n}", f"{n}".encode())
            child.kill()
            child.wait(60)
            writer.abort()
    with started(tmp_path, port):
        retained, queued = set(), []
        with MqttConnection("127.0.0.1", port, "reader") as reader:
            reader.subscribe("state/#")
            while len(retained) < 100 and (message := reader.receive(60)) is not None:
                retained.add(int(message.payload))
        with MqttConnection("127.0.0.1", port, "sleeper", clean=False) as sleeper:
            while len(set(queued)) < 100 and (message := sleeper.receive(6)) is not None:
                queued.append(int(message.payload))
    assert retained == set(range(100))
    # The acknowledgement of the last one leaves before the save at the end of the round.
    assert set(queued) >= set(range(99))


def test_listens_on_loopback_only_without_delay(tmp_path: Path) -> None:
    port = private_mosquitto.free_port()
    with started(tmp_path, port) as child:
        local = set(re.findall(r"^ *\d+: (\w+):([0-9A-F]{4}) \S+ 0A", Path("/proc/net/tcp").read_text(), re.MULTILINE))
        assert ("0100007F", f"{port:04X}") in local
        assert ("00000000", f"{port:04X}") not in local
        with MqttConnection("127.0.0.1", port, "probe") as link:
            link.publish("a", b"b")
        owner = Path(f"/proc/{child.pid}").stat().st_uid
    assert owner == os.geteuid(), "it must stay us, or it cannot write its folder"
    assert "set_tcp_nodelay true" in (tmp_path / "mosquitto.conf").read_text()
    assert (tmp_path / "mosquitto.db").exists()


@pytest.mark.parametrize("name", ["a\nallow_anonymous true", "tab\tname", "trailing "])
def test_a_folder_name_cannot_write_the_configuration(name: str) -> None:
    with pytest.raises(CliError) as caught:
        private_mosquitto.configuration(1883, Path("/srv") / name, Path("/srv/log"))
    assert caught.value.code is Exit.USAGE


def test_without_mosquitto_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(private_mosquitto, "EXTRA_PATH", str(tmp_path))
    with pytest.raises(CliError, match="sudo apt install mosquitto") as caught:
        private_mosquitto.program()
    assert caught.value.code is Exit.USAGE


def test_a_taken_port_is_seen(tmp_path: Path) -> None:
    port = private_mosquitto.free_port()
    assert not private_mosquitto.is_taken(port)
    with started(tmp_path, port):
        assert private_mosquitto.is_taken(port)
