"""USB devices with firmware in Python, for a Linux with dummy_hcd: what it plays as a gadget it sees as a host.

    python -m virtual_lab.usb_guest_gadgets cable --udc dummy_udc.0 --serial CABLE1
    python -m virtual_lab.usb_guest_gadgets relay --udc dummy_udc.1 --serial REL01

prints one line when the device is plugged in and plays it until it is killed. `cable` is a CDC-ACM power cable of one
character per command, `relay` a HID relay 16c0:05df of four channels. What the firmware did stands in `--state`, as
JSON: {"power": true, "heard": ["1", "?"]} or {"channels": 3, "reports": ["ff01..."]}. A file named `--state` with
`.vanish` behind it makes the device pull itself off the bus when it is next told to switch, before it answers: for the
seconds that stand in the file, or for ever if it holds `never`. Needs root, configfs and libcomposite.
"""

import argparse
import contextlib
import ctypes
import json
import os
import struct
import sys
import time
import tty
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

CONFIGFS = Path("/sys/kernel/config/usb_gadget")
LANGUAGE = "strings/0x409"  # English, the only one that anybody asks for
FULL_SPEED_PACKET = 8
POWER_BIT = 1
HEX_DIGITS = b"0123456789abcdefABCDEF"

# linux/usb/functionfs.h
FFS_DESCRIPTORS_MAGIC_V2 = 3
FFS_STRINGS_MAGIC = 2
FFS_HAS_FULL_SPEED, FFS_HAS_HIGH_SPEED = 1, 2
FFS_EVENT = struct.Struct("<BBHHHB3x")
FFS_SETUP = 4
# HID 1.11, 7.1 and 7.2
GET_DESCRIPTOR, GET_REPORT, SET_REPORT = 6, 1, 9
HID_DESCRIPTOR, REPORT_DESCRIPTOR, FEATURE_REPORT = 0x21, 0x22, 3
DEVICE_TO_HOST = 0x80
REPORT_BYTES = 8
# As the firmware of the relay boards sends it (V-USB's hiddata example): one feature report of eight bytes, no id.
RELAY_REPORT = bytes.fromhex("0600ff 0901 a101 1500 26ff00 7508 9508 0900 b20201 c0")
ALL_ON, ALL_OFF, ONE_ON, ONE_OFF = 0xFE, 0xFC, 0xFF, 0xFD


@dataclass
class Gadget:
    """One gadget in configfs, on one device controller."""

    udc: str
    serial: str
    vendor: str
    product: str
    maker: str
    model: str
    state: Path
    _folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self._folder = CONFIGFS / f"boardhand-{self.serial.lower()}"

    def make(self, function: str) -> Path:
        """Describe the device, with one function, as `acm.0`. Returns the function's folder."""
        words = {"serialnumber": self.serial, "manufacturer": self.maker, "product": self.model}
        folders = [self._folder / LANGUAGE, self._folder / "configs/c.1", self._folder / "functions" / function]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for name, value in {"idVendor": self.vendor, "idProduct": self.product, "bcdUSB": "0x0110"}.items():
            (self._folder / name).write_text(value, encoding="ascii")
        for name, value in words.items():
            (self._folder / LANGUAGE / name).write_text(value, encoding="ascii")
        link = self._folder / "configs/c.1" / function
        if not link.is_symlink():
            link.symlink_to(folders[2])
        return folders[2]

    def plug(self) -> None:
        (self._folder / "UDC").write_text(self.udc, encoding="ascii")

    def unplug(self) -> None:
        with contextlib.suppress(OSError):  # it is not plugged in
            (self._folder / "UDC").write_text("\n", encoding="ascii")

    def tell(self, what: dict[str, object]) -> None:
        """Write the state file, whole or not at all."""
        fresh = self.state.with_suffix(".new")
        fresh.write_text(json.dumps(what), encoding="ascii")
        fresh.replace(self.state)

    def vanishes(self) -> bool:
        """Whether the device went off the bus now, because the file says so. Returns when it is back."""
        wish = self.state.with_name(self.state.name + ".vanish")
        try:
            text = wish.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return False
        wish.unlink()
        self.unplug()
        while text == "never":
            time.sleep(3600)
        time.sleep(float(text))
        self.plug()
        return True


class Cable:
    """The firmware of a power cable: a hexadecimal digit sets it, `?` asks for it."""

    def __init__(self, gadget: Gadget) -> None:
        self._gadget = gadget
        self._digit = 0
        self._heard: list[str] = []

    def play(self) -> None:
        """For ever."""
        number = (self._gadget.make("acm.0") / "port_num").read_text(encoding="ascii").strip()
        self._tell()
        self._gadget.plug()
        say_ready()
        while True:
            # Opened anew whenever the host has gone: the kernel hangs the port up.
            port = os.open(f"/dev/ttyGS{number}", os.O_RDWR | os.O_NOCTTY)
            try:
                tty.setraw(port)
                while received := os.read(port, 64):
                    for byte in received:
                        self._hear(bytes([byte]), port)
            except OSError:
                pass
            finally:
                os.close(port)
            time.sleep(0.05)

    def _hear(self, character: bytes, port: int) -> None:
        self._heard.append(character.decode("latin-1"))
        if character == b"?":
            os.write(port, b"%x" % self._digit)
        elif character in HEX_DIGITS:
            self._digit = int(character, 16)
            self._tell()
            self._gadget.vanishes()
        self._tell()

    def _tell(self) -> None:
        self._gadget.tell({"power": bool(self._digit & POWER_BIT), "heard": self._heard})


class Relay:
    """The firmware of a HID relay: feature reports switch channels and tell the serial and the channels' bits."""

    def __init__(self, gadget: Gadget, channels: int) -> None:
        self._gadget = gadget
        self._count = channels
        self._bits = 0
        self._reports: list[str] = []

    def play(self) -> None:
        """For ever."""
        name = self._gadget.serial.lower()
        self._gadget.make(f"ffs.{name}")
        place = Path(f"/run/ffs-{name}")
        place.mkdir(exist_ok=True)
        mount(name, place, "functionfs")
        control = os.open(place / "ep0", os.O_RDWR)
        os.write(control, relay_descriptors())
        os.write(control, struct.pack("<IIII", FFS_STRINGS_MAGIC, 16, 0, 0))  # no strings, in no language
        self._tell()
        self._gadget.plug()
        say_ready()
        while True:
            events = os.read(control, FFS_EVENT.size)
            kind, request, value, _index, length, event = FFS_EVENT.unpack(events)
            if event == FFS_SETUP:
                with contextlib.suppress(OSError):  # the host gave the transfer up
                    self._setup(control, (kind, request, value, length))

    def _setup(self, control: int, setup: tuple[int, int, int, int]) -> None:
        kind, request, value, length = setup
        if kind & DEVICE_TO_HOST:
            answer = self._answer(request, value)
            if answer is None:
                os.read(control, 0)  # the wrong direction: the kernel stalls
            else:
                os.write(control, answer[:length])
        elif request == SET_REPORT:
            self._obey(os.read(control, length))
        elif length:
            os.write(control, b"")  # the wrong direction: the kernel stalls
        else:
            os.read(control, 0)  # SET_IDLE and its like: taken, and without meaning here

    def _answer(self, request: int, value: int) -> bytes | None:
        if request == GET_DESCRIPTOR and value >> 8 == REPORT_DESCRIPTOR:
            return RELAY_REPORT
        if request == GET_DESCRIPTOR and value >> 8 == HID_DESCRIPTOR:
            return hid_descriptor()
        if request == GET_REPORT and value >> 8 == FEATURE_REPORT:
            return self._gadget.serial.encode()[:5].ljust(7, b"\0") + bytes([self._bits])
        return None

    def _obey(self, report: bytes) -> None:
        self._reports.append(report.hex())
        command, channel = report[0], report[1]
        bit = 1 << (channel - 1) if 1 <= channel <= self._count else 0
        if command == ALL_ON:
            self._bits = (1 << self._count) - 1
        elif command == ALL_OFF:
            self._bits = 0
        elif command == ONE_ON:
            self._bits |= bit
        elif command == ONE_OFF:
            self._bits &= ~bit
        self._tell()
        self._gadget.vanishes()

    def _tell(self) -> None:
        self._gadget.tell({"channels": self._bits, "reports": self._reports})


def hid_descriptor() -> bytes:
    """HID 1.11, 6.2.1: version 1.01, no country, one report descriptor."""
    return struct.pack("<BBHBBBH", 9, HID_DESCRIPTOR, 0x0101, 0, 1, REPORT_DESCRIPTOR, len(RELAY_REPORT))


def relay_descriptors() -> bytes:
    """Interface, HID and endpoint descriptors as functionfs takes them, for full and for high speed."""
    interface = struct.pack("<BBBBBBBBB", 9, 4, 0, 0, 1, 3, 0, 0, 0)
    both = []
    for interval in (10, 7):  # 10 ms; at high speed 2^(7-1) microframes are 8 ms
        endpoint = struct.pack("<BBBBHB", 7, 5, 0x81, 3, FULL_SPEED_PACKET, interval)
        both.append(interface + hid_descriptor() + endpoint)
    body = struct.pack("<II", 3, 3) + b"".join(both)  # three descriptors for each speed
    flags = FFS_HAS_FULL_SPEED | FFS_HAS_HIGH_SPEED
    return struct.pack("<III", FFS_DESCRIPTORS_MAGIC_V2, 12 + len(body), flags) + body


def mount(source: str, target: Path, kind: str) -> None:
    """Mount a file system, as the program of this name.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), str(target).encode(), kind.encode(), 0, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m virtual_lab.usb_guest_gadgets")
    parser.add_argument("device", choices=["cable", "relay"])
    parser.add_argument("--udc", required=True)
    parser.add_argument("--serial", required=True)
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--state", type=Path, required=True)
    given = parser.parse_args(arguments)
    if given.device == "cable":
        what = ("0x1209", "0x0001", "boardhand", "Virtual power cable")
        Cable(Gadget(given.udc, given.serial, *what, given.state)).play()
    else:
        what = ("0x16c0", "0x05df", "www.dcttech.com", f"USBRelay{given.channels}")
        Relay(Gadget(given.udc, given.serial, *what, given.state), given.channels).play()
    return 0


if __name__ == "__main__":
    sys.exit(main())
