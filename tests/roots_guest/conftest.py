"""A shelf with an MQTT server, our agent and QEMU boards, all in a private network, and one Debian root for all boards,
made by `boardhand image build`.

Needs root's rights: overlays are mounted and exported. The test process itself goes into the network while it runs.
"""

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from firmware_tools import debian_packages, initramfs, kernel_modules
from firmware_tools.debian_packages import cache_dir
from netboot.roots import boot_words
from netboot.roots.importing import RootImport
from netboot.roots.store import RootStore
from virtual_lab import debian_root, namespace, network, qemu_board
from virtual_lab.child_process import child_environment
from virtual_lab.lab_tools import find_tools
from virtual_lab.network import BRIDGE_ADDRESS, CableEnd, CableKind
from virtual_lab.qemu_board import QemuBoardSpec

BOARDS = {"one": "server", "two": "server", "three": "client-memory", "four": "client-nfs"}
ROOT = "debian"
READY_DEADLINE_S = 150.0
"""Alone a board needs 20 s from power to ready; on a build server with all its cores busy several times that."""
JOB_DEADLINE_S = 90.0
MQTT_PORT = 1883
# linux/sched.h, linux/mount.h
CLONE_NEWNS, MS_REC, MS_SLAVE = 0x20000, 0x4000, 0x80000
MOSQUITTO = "listener {port} {address}\nallow_anonymous true\nset_tcp_nodelay true\n"
SETTINGS = """\
[agent]
name = "lab"
state_dir = "{folder}/state"
[mqtt]
url = "mqtt://{address}:{port}"
[netboot]
interface = "{bridge}"
address = "{address}/24"
mqtt_for_boards = "{address}:{port}"
http_port = 0
[roots]
dir = "{folder}/roots"
engine = "ganesha"
authorised_keys = ["{key}"]
"""
PROFILE = """\
[profiles.{view}]
arch = "arm64"
kernel = "{kernel}"
initrd = "{initrd}"
cmdline = "console=ttyAMA0 panic=-1 systemd.show_status=false fstab=no"
root = "{root}"
root_view = "{view}"
root_reset = "boot"
"""
BOARD = """\
[controllers.power-{board}]
driver = "qmp"
socket = "{spec.qmp_socket}"
[boards.{board}]
feed = ["power-{board}:1"]
macs = ["{spec.mac}"]
address = "{ip}"
profile = "{view}"
dtb = "{spec.device_tree}"
uuid = "{spec.uuid}"
console = "unix:{spec.console_socket}"
boot_timeout_s = 150
min_off_s = 0.2
"""


def quiet(*_):
    """A `Progress` for those who do not care."""


class Ear:
    """An MQTT client that hears everything, and speaks."""

    def __init__(self):
        self.heard = []
        self.more = threading.Condition()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="test")
        self.client.on_connect = lambda client, *_: client.subscribe("boardhand/#", 1)
        self.client.on_message = self.on_message
        self.client.connect(BRIDGE_ADDRESS, MQTT_PORT)
        self.client.loop_start()

    def on_message(self, _client, _data, message):
        try:
            payload = json.loads(message.payload)
        except ValueError:
            payload = message.payload
        with self.more:
            self.heard.append((message.topic.removeprefix("boardhand/"), payload))
            self.more.notify_all()

    def said(self, topic, since=0, **fields):
        """What was said on a topic from message number `since` on, with these values."""
        return [
            payload
            for at, payload in self.heard[since:]
            if at == topic and isinstance(payload, dict) and fields.items() <= payload.items()
        ]

    def wait(self, topic, within_s, since=0, **fields):
        with self.more:
            assert self.more.wait_for(lambda: self.said(topic, since, **fields), within_s), (
                f"{topic} {fields}: not within {within_s:g} s; last:\n"
                + "\n".join(str(heard)[:300] for heard in self.heard[-12:])
            )
            return self.said(topic, since, **fields)[0]

    def after(self, topic, within_s, since=0, **fields):
        """The number of the message behind the first of these."""
        found = self.wait(topic, within_s, since, **fields)
        return next(number for number, (_, payload) in enumerate(self.heard) if payload is found) + 1

    def now(self):
        return len(self.heard)

    def say(self, topic, payload):
        text = payload if isinstance(payload, str) else json.dumps(payload)
        self.client.publish(f"boardhand/{topic}", text, qos=1).wait_for_publish(10)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


class Shelf:
    """What stands on the shelf. Boards are off at first."""

    def __init__(self, folder, cables):
        self.folder, self.cables = folder, cables
        self.children = {}
        self.tools = find_tools()
        self.specs = {}
        self.jobs = 0
        self.ear = None

    # --- setting up ---

    def prepare(self):
        kernel = debian_packages.fetch_kernel("arm64", cache_dir(), quiet)
        initrd = self.folder / "initrd"
        initramfs.build_board_initramfs(
            initrd,
            arch="arm64",
            busybox=debian_packages.fetch_busybox("arm64", cache_dir(), quiet),
            modules=kernel_modules.resolve(kernel.modules_dir, ("virtio_pci", "virtio_net", "virtio_rng")),
            root_modules=kernel_modules.resolve(kernel.modules_dir, boot_words.MODULES),
            client="busybox",
            client_file=debian_root.CLIENT_FILE.with_name("client.sh"),
            extra_files=boot_words.initramfs_files(),
        )
        tree = self.folder / "virt.dtb"
        qemu_board.dump_device_tree(self.tools, tree)
        self.store = RootStore(self.folder / "roots")
        self.root = RootImport(self.store).run(ROOT, debian_root.get(cache_dir(), quiet))
        key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=30)
        public = key.with_suffix(".pub").read_text().strip()
        text = SETTINGS.format(
            folder=self.folder, address=BRIDGE_ADDRESS, port=MQTT_PORT, bridge=network.BRIDGE, key=public
        )
        for view in dict.fromkeys(BOARDS.values()):
            text += PROFILE.format(view=view, kernel=kernel.image_gz, initrd=initrd, root=ROOT)
        for number, (board, view) in enumerate(BOARDS.items(), 1):
            spec = QemuBoardSpec(board, mac(number), self.folder / board, self.folder)
            qemu_board.prepare(spec, tree)
            self.specs[board] = spec
            text += BOARD.format(board=board, spec=spec, ip=address(number), view=view)
        (self.folder / "agent.toml").write_text(text)
        (self.folder / "mosquitto.conf").write_text(MOSQUITTO.format(port=MQTT_PORT, address=BRIDGE_ADDRESS))

    def start(self):
        self.spawn("mosquitto", ["mosquitto", "-c", str(self.folder / "mosquitto.conf")])
        until("mosquitto listens", lambda: listens(MQTT_PORT), 20)
        self.ear = Ear()
        for board, cable in zip(BOARDS, self.cables, strict=True):
            self.spawn(board, qemu_board.command(self.specs[board], self.tools, cable), pass_fds=(cable.nic,))
        for spec in self.specs.values():
            until(f"{spec.qmp_socket} is there", spec.qmp_socket.exists, 30)
        self.start_agent()

    def start_agent(self):
        since = self.ear.now()
        self.spawn("agent", [sys.executable, "-m", "agent", "--settings", str(self.folder / "agent.toml")])
        try:
            self.ear.wait("agent/lab/state", 40, since, state="online")
        except AssertionError:
            raise AssertionError(self.log("agent")) from None

    def spawn(self, name, command, **more):
        with (self.folder / f"{name}.log").open("ab") as log:
            self.children[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=child_environment(), **more
            )

    def stop(self):
        if self.ear is not None:
            self.ear.close()
        for name in reversed(list(self.children)):
            child = self.children[name]
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    # --- what tests do ---

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")[-6000:]

    def console(self, board):
        path = self.specs[board].console_log
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", path.read_text(errors="replace")) if path.exists() else ""

    def power(self, board, word):
        self.ear.say(f"board/{board}/power/set", word)

    def boot(self, *boards):
        """Switch boards on, or off and on, and wait until each has registered."""
        since = self.ear.now()
        for board in boards:
            states = self.ear.said(f"board/{board}/state")
            on = bool(states) and states[-1]["power"] == "on"
            self.power(board, "cycle" if on else "on")
        for board in boards:
            self.comes_up(board, since)

    def comes_up(self, board, since):
        """Wait until a boot that began after message number `since` has registered."""
        topic = f"board/{board}/state"
        try:
            # Ready may be said once more of the boot that ends.
            since_boot = self.ear.after(topic, READY_DEADLINE_S, since, phase="netboot")
            self.ear.wait(topic, READY_DEADLINE_S, since_boot, phase="ready")
        except AssertionError as error:
            story = f"{error}\n--- agent\n{self.log('agent')}\n--- console\n{self.console(board)[-4000:]}"
            raise AssertionError(story) from None

    def order(self, board, kind):
        """Tell a board to reboot, or to power down."""
        self.ear.say(f"board/{board}/work", {"kind": kind, "reason": "a test"})

    def switch_off(self, board):
        since = self.ear.now()
        self.power(board, "off")
        self.ear.wait(f"board/{board}/state", 30, since, phase="off")

    def request(self, verb, data):
        """Ask the agent; its answer."""
        transaction = f"t-{self.ear.now()}"
        self.ear.say(f"agent/lab/request/{verb}", {"transaction": transaction, "data": data})
        return self.ear.wait(f"agent/lab/response/{verb}", 60, transaction=transaction)

    def login(self, host, command):
        """What a command on a board prints, as OpenSSH runs it with the key of the settings."""
        options = ["-i", str(self.folder / "key"), "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
        done = subprocess.run(
            ["ssh", "-F", "none", *options, "-o", "StrictHostKeyChecking=no", f"root@{host}", command],
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def have_up(self, board):
        """Boot a board that is not ready."""
        states = self.ear.said(f"board/{board}/state")
        if not states or states[-1]["phase"] not in {"ready", "busy"}:
            self.boot(board)

    def offer(self, board, script, timeout_s=60):
        """Give a board work, without waiting for it. Returns the job's name."""
        self.jobs += 1
        job = f"job-{self.jobs}"
        step = {"name": "run", "run": script, "timeout_s": timeout_s}
        self.ear.say(
            f"board/{board}/work",
            {"kind": "offer", "job": job, "token": self.jobs, "expires": "2099-01-01T00:00:00Z",
             "name": job, "steps": [step]},
        )  # fmt: skip
        return job

    def output(self, board, job):
        said = self.ear.said(f"board/{board}/work/result", kind="log", job=job)
        return "".join(chunk["text"] for chunk in sorted(said, key=lambda chunk: chunk["seq"]))

    def outcome(self, board, job, within_s=JOB_DEADLINE_S):
        """How the job ended; the board may forget it then."""
        try:
            said = self.ear.wait(f"board/{board}/work/result", within_s, kind="outcome", job=job)
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- console\n{self.console(board)[-3000:]}") from None
        self.ear.say(f"board/{board}/work", {"kind": "ack", "job": job, "token": said["token"], "ok": True})
        return said["outcome"]

    def run(self, board, script):
        """What a script on the board prints. It must end well."""
        job = self.offer(board, script)
        outcome = self.outcome(board, job)
        assert outcome == "passed", self.output(board, job)
        return self.output(board, job)

    def nfs_server(self):
        """The process id of the NFS server in our network."""
        home = namespace.network_identity()
        for entry in Path("/proc").iterdir():
            try:
                named = entry.name.isdecimal() and (entry / "comm").read_text().startswith("ganesha.nfsd")
                if named and (entry / "ns/net").stat().st_ino == home:
                    return int(entry.name)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
        return None


def mac(number):
    return f"52:54:00:77:00:{number:02x}"


def address(number):
    return f"10.77.0.{10 + number}"


def listens(port):
    try:
        socket.create_connection((BRIDGE_ADDRESS, port), timeout=1).close()
    except OSError:
        return False
    return True


def until(what, condition, within_s):
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {within_s:g} s"
        time.sleep(0.05)
    return found


def keep_mounts_to_ourselves():
    """From now on this process mounts for itself and its children alone: killed, it leaves nothing mounted."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    assert libc.mount(b"none", b"/", None, MS_REC | MS_SLAVE, None) == 0, os.strerror(ctypes.get_errno())


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    assert os.geteuid() == 0, "these tests mount and export overlays: run them as root"
    folder = tmp_path_factory.mktemp("s")
    assert len(str(folder)) < 80, f"{folder}: too long for unix sockets; give pytest a shorter --basetemp"
    keep_mounts_to_ourselves()
    with namespace.inside(namespace.new_network()):
        network.build_bridge()
        ends = [CableEnd(mac(number), address(number)) for number in range(1, len(BOARDS) + 1)]
        made = Shelf(folder, network.lay_cables(ends, CableKind.TAP))
        made.prepare()
        try:
            made.start()
            yield made
        finally:
            made.stop()
