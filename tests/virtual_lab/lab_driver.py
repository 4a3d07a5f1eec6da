"""Runs one scenario in a private network, as root or as nobody: `python lab_driver.py root|nobody SCENARIO FOLDER`.

A process of its own, because a namespace and a user cannot be left again. What it finds is printed as JSON. As nobody
it imports first, for the interpreter may lie where nobody may not look, and so it forks rather than starts Python.
"""

import ctypes
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from pyroute2 import IPRoute

from firmware_tools.image import device_tree
from virtual_lab import frame_pump, namespace, network, qemu_board
from virtual_lab.lab_tools import find_tools
from virtual_lab.network import CableEnd, CableKind

NOBODY = 65534
PR_SET_DUMPABLE = 4
MAC = "52:54:00:77:00:02"
ADDRESS = "10.77.0.12"


def become_nobody():
    # What is imported late must be imported now.
    for name in ("encodings.ascii", "encodings.idna", "hashlib"):
        importlib.import_module(name)
    with IPRoute() as routes:
        list(routes.get_links())
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    # A process that changed its user may not write its own /proc/self/uid_map; one that nobody started may.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


class Pump:
    """The frame pump in a forked child; `-m virtual_lab.frame_pump` would need an interpreter that nobody can run.

    It is forked before anything else: a fork of a process with threads, which pyroute2 may have, can hang.
    """

    def __init__(self):
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            self._wait_and_run(theirs)
            os._exit(0)
        theirs.close()
        self._control = ours

    @staticmethod
    def _wait_and_run(control):
        if sys.argv[1] == "nobody" and os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        said, ends, _, _ = socket.recv_fds(control, 1, 64)
        if said:
            sockets = [socket.socket(fileno=end) for end in ends]
            frame_pump.run(list(zip(sockets[::2], sockets[1::2], strict=True)), control)

    def start(self, pairs):
        socket.send_fds(self._control, [b"!"], [end for pair in pairs for end in pair])

    def end(self):
        self._control.close()
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Port:
    """QEMU's end of a cable, in our hands."""

    def __init__(self, cable):
        self._cable = cable
        self._tap = cable.kind is CableKind.TAP
        self._mac = bytes.fromhex(MAC.replace(":", ""))
        os.set_blocking(cable.nic, False)
        if not self._tap:
            self._socket = socket.socket(fileno=os.dup(cable.nic))

    def send(self, frame):
        if self._tap:
            os.write(self._cable.nic, bytes(10) + frame)
        else:
            self._socket.send(frame)

    def ask(self, frame, wanted, seconds=60.0):
        """Send `frame` until an answer comes: a cable that was just laid may carry nothing yet."""
        until = again = time.monotonic()
        until += seconds
        while (now := time.monotonic()) < until:
            if now >= again:
                self.send(frame)
                again = now + 0.5
            try:
                got = os.read(self._cable.nic, 65536)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            heard = got[10:] if self._tap else got
            if wanted(heard):
                return heard
        raise SystemExit("the frame that was waited for did not come")

    def ask_for_bridge(self):
        """ARP for 10.77.0.1; returns who answered."""
        source, target = socket.inet_aton(ADDRESS), socket.inet_aton(network.BRIDGE_ADDRESS)
        arp = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + self._mac + source + bytes(6) + target
        question = b"\xff" * 6 + self._mac + b"\x08\x06" + arp
        answer = self.ask(question, lambda frame: frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02")
        return answer[6:12]

    def syn(self, to_mac, port):
        """Open a TCP connection; returns the answer's TCP checksum over its pseudo header: 0 when it is right."""
        source, target = socket.inet_aton(ADDRESS), socket.inet_aton(network.BRIDGE_ADDRESS)
        tcp = struct.pack(">HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 2, 8192, 0, 0)
        pseudo = source + target + struct.pack(">BBH", 0, 6, len(tcp))
        tcp = tcp[:16] + struct.pack(">H", checksum(pseudo + tcp)) + tcp[18:]
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + source + target
        ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
        opening = to_mac + self._mac + b"\x08\x00" + ip + tcp
        got = self.ask(opening, lambda frame: frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[47] == 0x12)
        length = int.from_bytes(got[16:18], "big") - 20
        answer = got[34 : 34 + length]
        return checksum(target + source + struct.pack(">BBH", 0, 6, length) + answer)


def identity(folder, pump):
    before, outside = namespace.network_identity(), os.geteuid()
    mapped = namespace.enter_private_network()
    names = [name for _, name in socket.if_nameindex()]
    other = namespace.new_network()
    with namespace.inside(other):
        inner = namespace.network_identity()
    return {
        "mapped": mapped, "moved": namespace.network_identity() != before, "names": names, "uid": os.geteuid(),
        "outside": outside, "third": inner not in {before, namespace.network_identity()},
    }  # fmt: skip


def frames(kind, pump):
    network.build_bridge()
    cables = network.lay_cables([CableEnd("52:54:00:77:00:01"), CableEnd(MAC, ADDRESS)], kind)
    if kind is CableKind.VETH:
        pump.start([cable.pump for cable in cables])
    port = Port(cables[1])
    bridge = port.ask_for_bridge()
    with socket.create_server((network.BRIDGE_ADDRESS, 1883)) as server:
        wrong = port.syn(bridge, 1883)
        server.settimeout(60)
    macs = Path("/proc/net/dev").read_text()  # the far ends of veths are elsewhere
    return {"bridge": bridge.hex(":"), "checksum": wrong, "interfaces": macs.count("veth0q"), "pump": pump.end()}


def tap(folder, pump):
    namespace.enter_private_network()
    return frames(CableKind.TAP, pump) if network.tap_is_possible() else {"impossible": True}


def veth(folder, pump):
    namespace.enter_private_network()
    return frames(CableKind.VETH, pump)


def uboot(folder, pump):
    """A real U-Boot does DHCP and TFTP with dnsmasq through the veth and the pump."""
    namespace.enter_private_network()
    network.build_bridge()
    tools = find_tools()
    [cable] = network.lay_cables([CableEnd(MAC, None)], CableKind.VETH)
    pump.start([cable.pump])
    base = folder / "base.dtb"
    qemu_board.dump_device_tree(tools, base)
    spec = qemu_board.QemuBoardSpec("virt-2", MAC, folder, folder, own_environment=False)
    qemu_board.prepare(spec, base)
    (folder / "boot.scr.uimg").write_bytes(os.urandom(3_000_001))
    lease = f"--dhcp-leasefile={folder}/leases"
    arguments = (
        "dnsmasq --no-daemon --conf-file=/dev/null --port=0 --interface=br0 --bind-interfaces --except-interface=lo "
        f"--no-ping --dhcp-range=10.77.0.100,10.77.0.150,10m --enable-tftp --tftp-root={folder} --pid-file= {lease}"
    )
    # In a user namespace there is nobody to become.
    mapped = Path("/proc/self/uid_map").read_text().split()[2] == "1"
    user = "--user=" if mapped else "--user=root"
    machine_command = qemu_board.command(spec, tools, cable)
    with (folder / "dnsmasq.log").open("wb") as log:
        server = subprocess.Popen([*arguments.split(), user], stdout=log, stderr=log)
        machine = subprocess.Popen(
            machine_command, pass_fds=(cable.nic,), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        switch_on(spec.qmp_socket)
        text = wait_for_text(spec.console_log, b"Bytes transferred = 3000001", 120.0)
        serial = device_tree.read(spec.device_tree.read_bytes()).root.properties["serial-number"]
    finally:
        for process in (machine, server):
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    bound = "DHCP client bound to address 10.77.0." in text
    return {"bound": bound, "pump": pump.end(), "serial": serial.decode(), "qemu": machine.returncode}


def switch_on(path):
    until = time.monotonic() + 60
    with socket.socket(socket.AF_UNIX) as qmp:
        qmp.settimeout(60)
        while qmp.connect_ex(str(path)):  # not there yet, or bound and not yet listening
            if time.monotonic() > until:
                raise SystemExit(f"QEMU does not listen on {path}")
            time.sleep(0.02)
        stream = qmp.makefile("rw")
        stream.readline()
        for command in ("qmp_capabilities", "cont"):
            stream.write(json.dumps({"execute": command}) + "\n")
            stream.flush()
            while "return" not in json.loads(stream.readline()):
                pass


def wait_for_text(path, wanted, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        text = path.read_bytes() if path.exists() else b""
        if wanted in text:
            return text.decode("utf-8", "replace")
        time.sleep(0.05)
    raise SystemExit(f"{wanted!r} did not appear in {seconds} s; the console ends with {text[-1500:]!r}")


SCENARIOS = {"identity": identity, "tap": tap, "veth": veth, "uboot": uboot}

if __name__ == "__main__":
    the_pump = Pump()
    if sys.argv[1] == "nobody" and os.geteuid() == 0:
        become_nobody()
    sys.stdout.write(json.dumps(SCENARIOS[sys.argv[2]](Path(sys.argv[3]), the_pump)) + "\n")
