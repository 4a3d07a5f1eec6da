"""A QEMU guest with a real Linux kernel, real udev and USB hubs, in which our agent and command line run.

    with UsbGuest(guest_image(cache), folder) as guest:
        assert guest.run("boardhand", "hubs").code == 0

It is driven over three unix sockets: commands, QMP, and one console per board. QEMU's own trace of its hubs
(`hub_trace`) is a witness that none of the guest's software can talk into anything.
"""

import json
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from firmware_tools import cpio
from firmware_tools.kernel_modules import plain_name, read_module, resolve
from virtual_lab.namespace import LabError, die_with_parent
from virtual_lab.usb_guest_image import GuestImage

QEMU = "qemu-system-x86_64"
MEMORY_MB = 1024
BOOT_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
# 20 s on an idle machine, under emulation; a loaded build server takes thrice that.
BOOT_DEADLINE_S = 180.0
QMP_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
ROOMS = (
    "agent", "board", "broker", "cli", "daemon", "firmware_tools", "netboot", "udev", "virtual_lab", "wire",
)  # fmt: skip
SOURCE = Path(__file__).resolve().parent.parent
_BOARDHAND = b'#!/bin/sh\nexec python3 -m cli "$@"\n'

SWITCHED_HUB = "HUBSER1"
"""Serial of the hub that switches each port, on port 1 of the first controller."""
PLAIN_HUB = "PLAIN1"
"""Serial of the hub without power switching, on port 2."""
BOARD_PORTS: Mapping[str, str] = {"BRD0001": "1.1", "BRD0002": "1.2", "BRD0003": "2.1"}
"""Serial of a board's FTDI converter -> its port on the first controller. Ports 1.3 and 1.4 are empty."""


class GuestError(LabError):
    """The guest does not start, does not answer, or QEMU refuses."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a program inside the guest ended. `code` is negative for a signal."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    def json(self) -> Any:
        """Its output, which is JSON.

        Raises:
            GuestError: it is not.
        """
        try:
            return json.loads(self.stdout)
        except ValueError as error:
            raise GuestError(f"ended with {self.code} and printed no JSON: {self.stdout!r} {self.stderr!r}") from error


@dataclass
class Running:
    """A program that runs inside the guest."""

    guest: "UsbGuest"
    number: int
    _ended: threading.Event = field(default_factory=threading.Event)
    _done: Done | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    def result(self, timeout_s: float = 60.0) -> Done:
        """Wait for its end.

        Raises:
            GuestError: it has not ended after `timeout_s`, or the guest is gone.
        """
        if not self._ended.wait(timeout_s):
            raise GuestError(f"command {self.number} has not ended after {timeout_s:g} s")
        if self._done is None:
            raise GuestError(f"the guest is gone; its console: {self.guest.last_words()}")
        return self._done

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30.0) -> Done:
        """Send it a signal, and wait for its end."""
        self.guest.ask({"signal": number, "of": self.number}).result(timeout_s)
        return self.result(timeout_s)

    def ended(self, done: Done | None) -> None:
        """Called when it has ended, with None when the guest has."""
        self._done = done
        self._ended.set()


class UsbGuest:
    """One guest. `folder` gets its logs and its initramfs. A context manager; used from several threads."""

    def __init__(self, image: GuestImage, folder: Path) -> None:
        self._image = image
        self.folder = folder
        self.console_log = folder / "guest-console.log"
        self.trace_log = folder / "guest-trace.log"
        # Sockets need a short path.
        self._sockets = Path(tempfile.mkdtemp(prefix="boardhand-usb-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._commands: socket.socket | None = None
        self._lock = threading.Lock()
        self._count = 0
        self._waiting: dict[int, Running] = {}

    # --- life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Boot, and return when the guest takes commands.

        Raises:
            GuestError: it does not in 180 s.
        """
        initramfs = self.folder / "guest-initramfs.cpio"
        initramfs.write_bytes(b"".join(cpio.archive(_initramfs_entries(self._image))))
        with (self.folder / "guest-qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(initramfs),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Nobody else would end it if this process were killed.
                preexec_fn=lambda: die_with_parent(signal.SIGKILL),  # noqa: PLW1509  # one call of libc, no locks
                start_new_session=True,
            )
        deadline = time.monotonic() + BOOT_DEADLINE_S
        up = Running(self, 0)
        self._waiting[0] = up
        self._commands = self._connect("commands", deadline)
        threading.Thread(target=self._listen, name="usb-guest", daemon=True).start()
        try:
            up.result(deadline - time.monotonic())
        except GuestError as error:
            raise GuestError(f"the guest did not come up in {BOOT_DEADLINE_S:g} s: {self.last_words()}") from error

    def stop(self) -> None:
        """End QEMU. Nothing inside is asked: its disk is thrown away."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._commands is not None:
            self._commands.close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def last_words(self) -> str:
        """The last lines of QEMU's log and of the guest's console, for a person."""
        words = ""
        for path in (self.folder / "guest-qemu.log", self.console_log):
            with suppress(OSError):
                words += path.read_text(encoding="utf-8", errors="replace")[-1500:]
        return words

    def _connect(self, name: str, deadline: float) -> socket.socket:
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            with suppress(OSError):
                found = socket.socket(socket.AF_UNIX)
                found.connect(str(self._sockets / name))
                return found
            time.sleep(0.05)
        raise GuestError(f"QEMU does not answer on its socket {name}: {self.last_words()}")

    def _command(self, initramfs: Path) -> list[str]:
        chardevs, devices = [], []
        for number, (serial, port) in enumerate(BOARD_PORTS.items()):
            chardevs += ["-chardev", f"socket,id=board{number},path={self.board_socket(serial)},server=on,wait=off"]
            usb = f"usb-serial,id={serial},bus=xhci.0,port={port},chardev=board{number},serial={serial}"
            devices += ["-device", f"{usb},always-plugged=on"]
        hub = f"usb-hub,id=switched,bus=xhci.0,port=1,ports=4,port-power=on,serial={SWITCHED_HUB}"
        return [
            _qemu(), "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", str(MEMORY_MB), "-name", "boardhand-usb-guest",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", str(self._image.kernel.image), "-initrd", str(initramfs),
            "-append", "console=ttyS0 quiet loglevel=4 panic=1 mitigations=off random.trust_cpu=on",
            "-drive", f"if=virtio,format=raw,snapshot=on,file={self._image.root}",
            "-serial", f"file:{self.console_log}",
            "-chardev", f"socket,id=qmp,path={self._sockets / 'qmp'},server=on,wait=off",
            "-mon", "chardev=qmp,mode=control",
            "-chardev", f"socket,id=commands,path={self._sockets / 'commands'},server=on,wait=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=commands,name=boardhand.commands",
            "-device", "virtio-rng-pci",
            *chardevs,
            "-device", "qemu-xhci,id=xhci,p2=8,p3=8", "-device", hub,
            "-device", f"usb-hub,id=plain,bus=xhci.0,port=2,ports=4,serial={PLAIN_HUB}",
            *devices,
            "-device", "qemu-xhci,id=other",
            "-trace", "usb_hub_set_port_feature", "-trace", "usb_hub_clear_port_feature", "-D", str(self.trace_log),
        ]  # fmt: skip

    # --- commands ------------------------------------------------------------------------------------------------

    def run(self, *argv: str, stdin: str = "", timeout_s: float = 60.0, env: Mapping[str, str] | None = None) -> Done:
        """Run one program inside, as root, and wait for its end. Whether it succeeded, `code` says.

        Raises:
            GuestError: the guest does not answer.
        """
        return self.begin(*argv, stdin=stdin, timeout_s=timeout_s, env=env).result(timeout_s + 10)

    def begin(
        self, *argv: str, stdin: str = "", timeout_s: float = 3600.0, env: Mapping[str, str] | None = None
    ) -> Running:
        """As `run`, without waiting."""
        return self.ask({"argv": argv, "stdin": stdin, "timeout_s": timeout_s, "env": dict(env or {})})

    def check(self, *argv: str, stdin: str = "", timeout_s: float = 60.0) -> str:
        """As `run`. Returns the output.

        Raises:
            GuestError: the program failed.
        """
        done = self.run(*argv, stdin=stdin, timeout_s=timeout_s)
        if done.code:
            raise GuestError(
                f"{' '.join(argv)[:200]} ended with {done.code}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
            )
        return done.stdout

    def python(self, script: str, *arguments: str, timeout_s: float = 60.0) -> Any:
        """Run a script with our rooms importable. Returns the JSON that it printed."""
        return json.loads(self.check("python3", "-", *arguments, stdin=script, timeout_s=timeout_s))

    def write(self, path: str, content: str) -> None:
        """Write a file inside, and the folders that lead to it."""
        self.check("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "sh", path, stdin=content)

    def ask(self, request: dict[str, Any]) -> Running:
        """Send one request of the command channel."""
        if self._commands is None:
            raise GuestError("the guest was not started")
        with self._lock:
            self._count += 1
            running = Running(self, self._count)
            self._waiting[running.number] = running
            self._commands.sendall(json.dumps({**request, "id": running.number}).encode() + b"\n")
        return running

    def _listen(self) -> None:
        """On its own thread: hand out what the guest says, until it is gone."""
        try:
            for line in _lines(self._commands):
                said = json.loads(line)
                found = self._waiting.pop(said.pop("id"), None)
                if found is not None:
                    found.ended(Done(**said) if said else Done(0, "", "", 0.0))
        except (OSError, ValueError):
            pass  # the socket was closed, or the guest died in the middle of a line
        for left in list(self._waiting.values()):
            left.ended(None)

    # --- QEMU ----------------------------------------------------------------------------------------------------

    def qmp(self, command: str, **arguments: Any) -> Any:
        """One QMP command, on a connection of its own. Returns what QEMU returned.

        Raises:
            GuestError: QEMU refuses or does not answer.
        """
        with self._connect("qmp", time.monotonic() + QMP_TIMEOUT_S) as link:
            link.settimeout(QMP_TIMEOUT_S)
            answers = (json.loads(line) for line in _lines(link))
            try:
                next(answers)  # its greeting
                for name, options in (("qmp_capabilities", {}), (command, arguments)):
                    link.sendall(json.dumps({"execute": name, "arguments": options}).encode() + b"\n")
                    answer = next(found for found in answers if "event" not in found)
                    if "error" in answer:
                        raise GuestError(f"QEMU refuses {name} {options}: {answer['error']['desc']}")
            except (OSError, StopIteration) as error:
                raise GuestError(f"QEMU did not answer {command}: {error!r}; {self.last_words()}") from error
        return answer["return"]

    def plug(self, driver: str, name: str, **properties: Any) -> None:
        """Add a device, as `plug("usb-hub", "third", bus="xhci.0", port="3")`."""
        self.qmp("device_add", driver=driver, id=name, **properties)

    def unplug(self, name: str) -> None:
        """Take a device away, and all that hangs on it."""
        self.qmp("device_del", id=name)

    def board_socket(self, serial: str) -> Path:
        """The unix socket on which the board behind an FTDI converter talks."""
        return self._sockets / f"board-{serial}"

    def hub_trace(self) -> list[str]:
        """What QEMU's hubs were told so far, one line each, as `usb_hub_clear_port_feature dev 1, wValue 8, ...`."""
        return self.trace_log.read_text(encoding="ascii", errors="replace").splitlines()


def _qemu() -> str:
    found = shutil.which(QEMU)
    if found is None:
        raise GuestError(f"{QEMU} is not there: apt-get install --no-install-recommends qemu-system-x86")
    return found


def _lines(link: socket.socket | None) -> Iterator[bytes]:
    """Whole lines from a stream socket until its end."""
    waiting = b""
    while link is not None and (block := link.recv(65536)):
        *lines, waiting = (waiting + block).split(b"\n")
        yield from lines


def _initramfs_entries(image: GuestImage) -> Iterator[cpio.Entry]:
    here = Path(__file__).parent
    modules = resolve(image.kernel.modules_dir, BOOT_MODULES)
    yield cpio.regular("bin/busybox", image.busybox.read_bytes(), 0o755)
    yield cpio.regular("init", (here / "usb_guest_initramfs.sh").read_bytes(), 0o755)
    yield cpio.regular("modules/list", "".join(f"{plain_name(path.name)}\n" for path in modules).encode())
    for path in modules:
        yield cpio.regular(f"modules/{plain_name(path.name)}.ko", read_module(path))
    yield from (cpio.directory(name) for name in ("dev", "root"))
    yield cpio.character_device("dev/console", 5, 1)
    yield cpio.regular("boardhand/init", (here / "usb_guest_init.sh").read_bytes(), 0o755)
    yield cpio.regular("boardhand/bin/boardhand", _BOARDHAND, 0o755)
    # importlib.metadata asks for our version and entry points.
    yield cpio.regular(
        "boardhand/rooms/boardhand-0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: boardhand\nVersion: 0\n"
    )
    for room in ROOMS:
        for path in sorted((SOURCE / room).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(SOURCE).as_posix()
                yield cpio.regular(f"boardhand/rooms/{name}", path.read_bytes())
