"""The image boots: Debian's kernel and this initramfs in QEMU, with both forms of the client, to a job's outcome."""

import hashlib
import hmac
import json
import subprocess
import threading
import time
from pathlib import Path

import pytest

import board
from board.client import MqttConnection
from firmware_tools.initramfs import build_board_initramfs
from firmware_tools.kernel_modules import BOARD_MODULES, resolve
from tests.free_ports import free_port
from wire.payloads import registration_message

BOARD_ROOM = Path(board.__file__).parent
SECRET = "ab12" * 16
BOOT_DEADLINE_S = 90.0  # 5 s on an idle machine; TCG on a busy one takes its time


class Machine:
    """One QEMU, and what its console said."""

    def __init__(self, kernel, initrd, cmdline, *network):
        command = [
            "qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57", "-m", "256", "-nographic", "-no-reboot",
            "-kernel", kernel.image, "-initrd", initrd, "-append", f"console=ttyAMA0 quiet {cmdline}", *network,
        ]  # fmt: skip
        self.child = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.text = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.child.stdout:
            with self._changed:
                self.text += line.decode("utf-8", "replace")
                self._changed.notify_all()

    def wait(self, text):
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.text, BOOT_DEADLINE_S), f"no {text!r} in:\n{self.text}"

    def end(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        self._reader.join()
        self.child.stdout.close()


@pytest.fixture
def boot(kernel, tmp_path):
    machines = []

    def start(initrd, cmdline="", *network):
        machines.append(Machine(kernel, initrd, cmdline, *network))
        return machines[-1]

    yield start
    for machine in machines:
        machine.end()


@pytest.fixture
def server(unused_port):
    child = subprocess.Popen(["mosquitto", "-p", str(unused_port)], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while True:
        link = MqttConnection("127.0.0.1", unused_port, "farm")
        try:
            link.connect()
            break
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.02)
    link.subscribe("boardhand/#")
    yield link
    link.close()
    child.kill()
    child.wait()


@pytest.fixture
def unused_port():
    return free_port()


@pytest.fixture(scope="module", params=["busybox", "python"])
def image(request, tmp_path_factory, kernel, busybox, python_root):
    initrd = tmp_path_factory.mktemp("image") / "initrd"
    build_board_initramfs(
        initrd, arch="arm64", busybox=busybox, modules=resolve(kernel.modules_dir, BOARD_MODULES),
        client=request.param, client_file=BOARD_ROOM / ("client.sh" if request.param == "busybox" else "client.py"),
        python_root=python_root,
    )  # fmt: skip
    return initrd


def expect(link, tail, kind=None):
    until = time.monotonic() + BOOT_DEADLINE_S
    while (left := until - time.monotonic()) > 0:
        message = link.receive(left)
        if message is not None and message.topic == f"boardhand/{tail}":
            payload = json.loads(message.payload)
            if kind in {None, payload.get("kind")}:
                return payload
    raise AssertionError(f"{tail} {kind} was not said")


def test_without_a_network_the_board_says_so_and_stays_up(boot, image):
    machine = boot(image, "boardhand.board=b1 boardhand.mqtt=10.0.2.2:1", "-net", "none")
    machine.wait("boardhand: init, kernel 6.")
    machine.wait("boardhand: no network interface")
    machine.wait("boardhand: client ended with 2")
    assert "panic" not in machine.text


# Each client once, and each way to an address once: neither sees anything of the other.
@pytest.mark.parametrize(
    ("image", "ip"),
    [("python", ""), ("busybox", "ip=10.0.2.77::10.0.2.2:255.255.255.0::eth0:off")],
    indirect=["image"],
)
def test_a_board_boots_registers_works_and_powers_down(boot, image, server, unused_port, ip):
    machine = boot(
        image, f"boardhand.board=b1 boardhand.mqtt=10.0.2.2:{unused_port} boardhand.secret={SECRET} {ip}",
        "-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:77:00:01,romfile=",
    )  # fmt: skip
    asked = expect(server, "register")
    message = registration_message("b1", asked["boot_id"], "52:54:00:77:00:01")
    assert asked["proof"] == hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest()
    assert asked["arch"] == "aarch64" and asked["compatible"] == ["linux,dummy-virt"] and asked["memory_mb"] > 100
    assert asked["address"] == ("10.0.2.77" if ip else "10.0.2.15")
    answer = {"ok": True, "boot_id": asked["boot_id"], "board": "b1"}
    server.publish("boardhand/register/52-54-00-77-00-01", json.dumps(answer).encode())
    assert expect(server, "board/b1/self")["os"] == "boardhand initramfs"
    expect(server, "board/b1/work/result", "ask")
    steps = [{"name": "look", "run": "uname -m; cat /proc/sys/kernel/random/boot_id"}, {"name": "no", "run": "exit 4"}]
    offer = {"kind": "offer", "job": "j1", "token": 3, "expires": "2030-01-01T00:00:00Z", "name": "x", "steps": steps}
    server.publish("boardhand/board/b1/work", json.dumps(offer).encode())
    text = ""
    while text != f"aarch64\n{asked['boot_id']}\n":
        text += expect(server, "board/b1/work/result", "log")["text"]
    outcome = expect(server, "board/b1/work/result", "outcome")
    assert outcome["outcome"] == "failed" and [step["exit_code"] for step in outcome["steps"]] == [0, 4]
    machine.wait("boardhand: registered as b1")
    server.publish("boardhand/board/b1/work", b'{"kind":"poweroff"}')
    while expect(server, "board/b1/self")["state"] != "offline":
        pass
    assert machine.child.wait(60) == 0  # QEMU ends when the machine switches itself off
