"""Real uevents, triggered by writing to sysfs, and a USB tree in a folder."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from agent.presence import sockets
from agent.presence.observations import UsbSeen, marks
from agent.presence.watch import PresenceWatch

DEADLINE_S = 60.0
TRIGGER = Path("/sys/devices/system/cpu/cpu0/uevent")


def trigger(times: int) -> None:
    """Have the kernel send this many uevents."""
    with TRIGGER.open("w") as file:
        for _ in range(times):
            os.write(file.fileno(), b"change")


class UsbTree:
    def __init__(self, folder: Path) -> None:
        self.sysfs = folder
        (folder / "bus/usb/devices").mkdir(parents=True)

    def plug(self, path: str, ids: str, serial: str = "", product: str = "") -> None:
        device = self.sysfs / "bus/usb/devices" / path
        device.mkdir()
        vendor, _, product_id = ids.partition(":")
        for name, value in {"idVendor": vendor, "idProduct": product_id, "serial": serial, "product": product}.items():
            if value:
                (device / name).write_text(value + "\n")


class Watch:
    def __init__(self, tree: UsbTree, **options) -> None:
        self.signs: asyncio.Queue = asyncio.Queue()
        self.seen: list = []
        boards = {"pi": marks([], None, "1-1.4"), "bone": marks([], None, "0525:a4a2:B-7")}
        self.watch = PresenceWatch(boards, self.heard, self.seen.append, sysfs=tree.sysfs, **options)

    def heard(self, signs) -> None:
        for sign in signs:
            self.signs.put_nowait(sign)

    async def __aenter__(self) -> "Watch":
        await self.watch.start()
        async with asyncio.timeout(DEADLINE_S):
            await self.watch.usb_known.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.watch.stop()

    async def sign(self):
        async with asyncio.timeout(DEADLINE_S):
            return await self.signs.get()


def uevent(action: str, path: str, product: str = "525/a4a2/404") -> bytes:
    device = f"/devices/usb1/{path}"
    properties = {"ACTION": action, "DEVPATH": device, "SUBSYSTEM": "usb", "DEVTYPE": "usb_device", "PRODUCT": product}
    return f"{action}@{device}\0".encode() + b"".join(f"{k}={v}\0".encode() for k, v in properties.items())


async def test_what_is_plugged_in_at_the_start_and_later(tmp_path) -> None:
    tree = UsbTree(tmp_path)
    tree.plug("1-1.4", "1d6b:0104", product="Multifunction")
    tree.plug("usb1", "1d6b:0002")
    async with Watch(tree) as watch:
        first = await watch.sign()
        assert (first.board, first.first, first.words) == ("pi", True, "USB device 1-1.4 (Multifunction)")
        tree.plug("1-2", "0525:a4a2", serial="B-7")
        watch.watch._uevent(uevent("add", "1-2"))
        later = await watch.sign()
        assert (later.board, later.first, later.details["usb"]) == ("bone", False, "1-2")
        watch.watch._uevent(uevent("remove", "1-2"))
        assert (await watch.sign()).alive is False
        watch.watch._uevent(b"\xff\0junk")
    assert [seen.path for seen in watch.seen if isinstance(seen, UsbSeen)] == ["1-1.4", "1-2", "1-2"]


async def test_a_device_that_went_while_its_serial_was_read_stays_gone(tmp_path) -> None:
    tree = UsbTree(tmp_path)
    async with Watch(tree) as watch:
        tree.plug("1-2", "0525:a4a2", serial="B-7")
        watch.watch._uevent(uevent("add", "1-2"))
        watch.watch._uevent(uevent("remove", "1-2"))
        await asyncio.gather(*(task for task in watch.watch._tasks if task.get_name() == "usb 1-2"))
        assert watch.signs.empty()


async def test_lost_uevents_are_found_in_sysfs(tmp_path, caplog) -> None:
    """More uevents than the socket holds, while the loop is held up."""
    tree = UsbTree(tmp_path)
    async with Watch(tree, buffer_bytes=4096) as watch:
        tree.plug("1-1.4", "0525:a4a2")
        trigger(200)
        sign = await watch.sign()
        assert (sign.board, sign.alive, sign.first) == ("pi", True, False)
    assert "netlink 15: the kernel dropped messages" in caplog.text


async def test_only_the_kernel_is_listened_to(tmp_path) -> None:
    async with Watch(UsbTree(tmp_path)) as watch:
        found = watch.watch._uevent_socket._socket
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, sockets.NETLINK_KOBJECT_UEVENT) as forger:
            forger.sendto(uevent("add", "1-1.4"), (found.getsockname()[0], 0))
        trigger(1)
        heard = asyncio.Event()
        original = watch.watch._uevent_socket._on_datagram

        def note(datagram: bytes) -> None:
            original(datagram)
            heard.set()

        watch.watch._uevent_socket._on_datagram = note
        async with asyncio.timeout(DEADLINE_S):
            await heard.wait()
        assert watch.signs.empty()


async def test_a_host_without_netlink_goes_without(tmp_path, monkeypatch, caplog) -> None:
    def forbidden(*_args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(sockets.socket, "socket", forbidden)
    watch = PresenceWatch({}, lambda _signs: None, sysfs=tmp_path)
    await watch.start()
    await watch.stop()
    assert watch.problems == [
        "links and neighbours are not watched: no rtnetlink: Operation not permitted",
        "USB devices are not watched: no uevents: Operation not permitted",
    ]


@pytest.mark.parametrize("text", ["1-1", "1-1.4.2", "12-1"])
def test_places_are_told_from_interfaces(text, tmp_path) -> None:
    from agent.presence import usb_scan

    tree = UsbTree(tmp_path)
    for name in (text, f"{text}:1.0", "usb1", "1-0:1.0"):
        tree.plug(name, "0525:a4a2")
    assert [seen.path for seen in usb_scan.scan(tmp_path)] == [text]
