"""A running agent takes up other settings: what is different is applied, and nothing else notices."""

import json
import os
import pty
import re
import signal
import socket
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.bench import DEADLINE_S, Bench, Listener, result_of

STATE = "boardhand/board/{}/state"


class Reloads(Bench):
    """The bench, with settings that are edited."""

    def __init__(self, folder: Path, mqtt: Any) -> None:
        super().__init__(folder, mqtt)
        self.count = 0

    def edit(self, old: str, new: str) -> None:
        text = self.settings.read_text()
        assert old in text
        self.settings.write_text(text.replace(old, new, 1))

    def add(self, text: str) -> None:
        with self.settings.open("a") as file:
            file.write(text)

    def remove(self, table: str) -> None:
        text = self.settings.read_text()
        left = re.sub(rf"(?ms)^\[{re.escape(table)}\]\n.*?(?=^\[|\Z)", "", text)
        assert left != text
        self.settings.write_text(left)

    def ask(self, heard: Listener, verb: str, **data: Any) -> dict[str, Any]:
        self.begin(verb, **data)
        return self.answered(heard, verb)

    def begin(self, verb: str, **data: Any) -> None:
        self.count += 1
        self.publish(f"boardhand/agent/lab/request/{verb}", json.dumps({"transaction": str(self.count), "data": data}))

    def answered(self, heard: Listener, verb: str) -> dict[str, Any]:
        topic = f"boardhand/agent/lab/response/{verb}"
        wanted = str(self.count)
        payload: dict[str, Any] = heard.wait(lambda m: m["topic"] == topic and m["payload"]["transaction"] == wanted)[
            "payload"
        ]
        return payload

    def switch(self, heard: Listener, board: str, power: str) -> dict[str, Any]:
        self.count += 1
        command = f"c{self.count}"
        self.publish(f"boardhand/board/{board}/power/set", json.dumps({"power": power, "id": command}))
        result: dict[str, Any] = heard.wait(result_of(board, command))["payload"]
        return result

    def log(self) -> str:
        return (self.folder / "agent.log").read_text()


def until(what: Callable[[], bool]) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.02)


def last(heard: Listener, topic: str) -> Any:
    return [message.get("payload") for message in heard.history if message["topic"] == topic][-1]


def terminal() -> tuple[int, str]:
    """A board's end, and the device that the agent finds free."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    device = os.ttyname(slave)
    os.close(slave)
    return master, device


@pytest.fixture
def bench(tmp_path: Path, mqtt: Any) -> Iterator[Reloads]:
    bench = Reloads(tmp_path, mqtt)
    yield bench
    bench.close()


def board(name: str, number: int, outlet: str | None = None) -> str:
    return (
        f'[boards.{name}]\nfeed = ["rack:{outlet or name}"]\nmin_off_s = 0.0\ntrust_mac = true\n'
        f'macs = ["52:54:00:00:00:{number:02x}"]\nboot_timeout_s = 120\n'
    )


def test_boards_come_and_go_and_the_others_do_not_notice(bench: Reloads) -> None:
    heard = bench.ready()
    assert bench.switch(heard, "pi", "on")["ok"]
    said_before = len([m for m in heard.history if m["topic"] == STATE.format("pi")])
    (bench.outlets / "late").write_text("on")
    bench.remove("boards.bone")
    bench.add(board("late", 9))
    assert bench.process is not None
    bench.process.send_signal(signal.SIGHUP)
    late = heard.wait(lambda m: m["topic"] == STATE.format("late"))["payload"]
    assert late["power"] == "on", "what was read back, not what was asked for"
    until(lambda: last(heard, STATE.format("bone")) is None or last(heard, STATE.format("bone")) == "")
    assert not last(heard, "boardhand/board/bone/info")
    heard.wait(lambda m: m["topic"] == "boardhand/agent/lab/info" and "late" in m["payload"]["boards"])
    assert bench.switch(heard, "late", "off")["ok"]
    assert (bench.outlets / "log").read_text().splitlines() == ["pi on", "late off"], "no other power moved"
    assert bench.ask(heard, "read", board="bone")["error"]["kind"] == "unknown-board"
    assert len([m for m in heard.history if m["topic"] == STATE.format("pi")]) == said_before
    # It comes back as it was, with its numbers going on.
    bench.add(board("bone", 2))
    told = bench.ask(heard, "reload")
    assert (told["ok"], told["data"]["boards"]["added"]) == (True, ["bone"])
    assert bench.switch(heard, "bone", "on")["ok"]
    # Another feed: what was asked of the old outlet is not enforced on the new one.
    bench.edit('feed = ["rack:pi"]', 'feed = ["rack:other"]\non_change = "enforce"')
    told = bench.ask(heard, "reload")["data"]
    assert {change["key"] for change in told["changes"]} == {"boards.pi.feed", "boards.pi.on_change"}
    until(lambda: last(heard, STATE.format("pi"))["power"] == "off")
    assert bench.switch(heard, "pi", "on")["ok"]
    assert (bench.outlets / "log").read_text().splitlines()[2:] == ["bone on", "other on"]
    # The same connection, the same session, and nobody said offline.
    states = {m["payload"]["state"] for m in heard.history if m["topic"] == "boardhand/agent/lab/state"}
    assert states == {"online"}
    assert "again in about" not in bench.log()


def test_settings_that_are_wrong_or_need_a_restart_change_nothing(bench: Reloads) -> None:
    heard = bench.ready()
    good = bench.settings.read_text()
    bench.add(board("late", 9) + "boot_retrys = 3\n")
    line = bench.settings.read_text().count("\n")
    told = bench.ask(heard, "reload")["error"]
    assert told["kind"] == "configuration"
    assert f"{bench.settings}:{line}: boards.late.boot_retrys:" in told["message"]
    assert "the old ones go on" in bench.log()
    assert told["message"] in bench.log()
    bench.settings.write_text("[agent")
    assert bench.process is not None
    bench.process.send_signal(signal.SIGHUP)
    until(lambda: "not TOML" in bench.log())
    # A key that only a restart takes up holds up the rest, unless that is wanted; what is wanted can be looked at.
    bench.settings.write_text(good + board("late", 9))
    bench.edit("[mqtt]\n", "[mqtt]\nkeepalive_s = 20\n")
    told = bench.ask(heard, "reload")["error"]
    assert (told["kind"], told["key"]) == ("refused", "mqtt.keepalive_s")
    seen = bench.ask(heard, "reload", check=True)["data"]
    assert seen["boards"]["added"] == ["late"]
    assert [late["key"] for late in seen["restart"]] == ["mqtt.keepalive_s"]
    assert bench.ask(heard, "read", board="late")["error"]["kind"] == "unknown-board"
    assert bench.ask(heard, "reload", partial=True)["data"]["boards"]["added"] == ["late"]
    assert bench.ask(heard, "read", board="late")["ok"]
    # A feed that cannot be is found before anything is touched; a port that is taken is, too.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        master, device = terminal()
        console = f'[boards.late.console]\ndevice = "{device}"\ntelnet_port = {port}\n'
        bench.add(console + board("later", 10))
        told = bench.ask(heard, "reload", partial=True)["error"]
        assert (told["kind"], "telnet_port" in told["message"]) == ("configuration", True)
        assert bench.ask(heard, "read", board="later")["error"]["kind"] == "unknown-board"
    told = bench.ask(heard, "reload", partial=True)
    assert told["ok"]
    assert bench.ask(heard, "console", board="late")["data"]["device"] == device
    os.close(master)
    assert bench.switch(heard, "pi", "on")["ok"]


def test_a_console_that_is_the_same_stays_open_and_one_that_is_not_is_another(bench: Reloads) -> None:
    master, device = terminal()
    other, its_device = terminal()
    bench.add(f'[boards.pi.console]\ndevice = "{device}"\n')
    bench.add(f'[boards.bone.console]\ndevice = "{device}x"\n')
    heard = bench.ready()
    until(lambda: "console of pi: open" in bench.log())
    with socket.socket(socket.AF_UNIX) as reader:
        reader.settimeout(DEADLINE_S)
        reader.connect(str(bench.folder / "state" / "consoles" / "pi.sock"))
        said = reader.recv(4096)  # telnet's greeting: it is attached
        os.write(master, b"before\r\n")
        while b"before" not in said:
            said += reader.recv(4096)
        bench.edit(f"{device}x", its_device)
        bench.edit("boot_timeout_s = 120", "boot_timeout_s = 99")
        told = bench.ask(heard, "reload")["data"]
        assert sorted(change["key"] for change in told["changes"]) == [
            "boards.bone.console",
            "boards.pi.boot_timeout_s",
        ]
        os.write(master, b"after\r\n")
        while b"after" not in said:
            said += reader.recv(4096)
        assert bench.log().count("console of pi: open") == 1
        until(lambda: "console of bone: open" in bench.log())
        os.write(other, b"[    0.000000] Linux version 6.1\r\n")
        heard.wait(lambda m: m["topic"] == "boardhand/event/bone" and m["payload"]["type"] == "console")
        # An action on a console that would be another holds up the reload; it can be cancelled.
        bench.begin("console-expect", board="pi", patterns=["never"], for_s=60)
        heard.wait(lambda m: m["topic"] == "boardhand/event/pi" and m["payload"]["details"].get("stage") == "waiting")
        bench.edit(f'device = "{device}"', f'device = "{device}"\nspeed = 9600')
        assert bench.ask(heard, "reload")["error"]["kind"] == "busy"
        assert bench.ask(heard, "cancel-action", board="pi")["ok"]
        heard.wait(lambda m: m["topic"] == "boardhand/event/pi" and m["payload"]["details"].get("stage") == "failed")
        assert bench.ask(heard, "reload")["ok"]
        while reader.recv(4096):
            pass  # who looked at the old console is told by its end
    until(lambda: bench.log().count("console of pi: open") == 2)
    assert bench.ask(heard, "console", board="pi")["data"]["speed"] == 9600
    os.close(master)
    os.close(other)


def test_a_power_command_under_way_is_waited_for(bench: Reloads) -> None:
    heard = bench.ready()
    (bench.outlets / "slow").write_text("1.0")
    bench.publish("boardhand/board/pi/power/set", '{"power":"on","id":"slow"}')
    until((bench.outlets / "begun").exists)
    bench.edit('feed = ["rack:pi"]', 'feed = ["rack:other"]')
    bench.edit("verify_deadline_s = 1.0", "verify_deadline_s = 2.0")
    bench.begin("reload")
    result = heard.wait(result_of("pi", "slow"))["payload"]
    assert (result["ok"], result["power"]) == (True, "on"), "the command ended on the outlet it began on"
    assert bench.answered(heard, "reload")["ok"]
    (bench.outlets / "slow").unlink()
    assert (bench.outlets / "log").read_text().splitlines() == ["pi on"]
    assert bench.switch(heard, "pi", "on")["ok"]
    assert (bench.outlets / "log").read_text().splitlines() == ["pi on", "other on"]


def test_a_transfer_under_way_goes_on(bench: Reloads, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(os.urandom(512 * 40 + 7))
    other = tmp_path / "other"
    other.write_bytes(b"another kernel")
    bench.add(
        f'[netboot]\ninterface = "lo"\naddress = "127.0.0.1/8"\ndhcp = "off"\ntftp_port = {port}\nhttp_port = 0\n'
        f'mqtt_for_boards = "127.0.0.1:{bench.mqtt.port}"\nwatch_segment = false\nipv6 = false\n'
        f'[profiles.linux]\narch = "arm64"\nkernel = "{kernel}"\n'
    )
    # A TFTP client on this host speaks from 127.0.0.1 unless it is bound: 127.0.0.2 is the board's.
    bench.edit("boot_timeout_s = 120", 'boot_timeout_s = 120\nprofile = "linux"\naddress = "127.0.0.2"')
    heard = bench.ready()
    assert bench.switch(heard, "pi", "on")["ok"]
    got = b""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.2", 0))
        client.settimeout(DEADLINE_S)
        client.sendto(b"\0\1kernel\0octet\0", ("127.0.0.1", port))
        for block in range(1, 42):
            data, peer = client.recvfrom(1024)
            while data[:4] == bytes((0, 3, 0, block - 1)):  # sent again, while the reload kept us
                data, peer = client.recvfrom(1024)
            assert data[:4] == bytes((0, 3, 0, block))
            got += data[4:]
            if block == 20:
                bench.add(board("late", 9))
                bench.edit(f'kernel = "{kernel}"', f'kernel = "{kernel}"\ncmdline = "quiet"')
                bench.remove("boards.bone")
                assert bench.ask(heard, "reload")["ok"]
            client.sendto(bytes((0, 4, 0, block)), peer)
        assert got == kernel.read_bytes()
        heard.wait(lambda m: m["topic"] == "boardhand/event/pi" and m["payload"]["details"].get("role") == "kernel")
        bench.edit(str(kernel), str(other))
        assert bench.ask(heard, "reload")["ok"]
        client.sendto(b"\0\1kernel\0octet\0", ("127.0.0.1", port))
        data = client.recv(1024)
        while data[:4] == bytes((0, 3, 0, 41)):
            data = client.recv(1024)
        assert data[4:] == b"another kernel"
