"""Raspberry Pis fetch from the real server, request by request as their documentation and captures show it.

Sources: Raspberry Pi documentation "Network booting" (Pi 3: boot ROM, then `bootcode.bin`), "Raspberry Pi bootloader
configuration" (TFTP_PREFIX: the folder is dropped where neither start4.elf nor start.elf is in it); rpi-eeprom issue 74
(packets of a Pi 4: tsize and blksize 1024, ERROR 0 "Early terminate" after a look for a file).
"""

import asyncio
import os
from ipaddress import IPv4Address, IPv4Network

import pytest

from netboot.events import FileRefused, FileSent
from netboot.profile import BootProfile
from netboot.server import NetbootBoard, NetbootConfig, NetbootServer
from netboot.staged import StagedTree

MODELS = {
    "pi3": ("b8:27:eb:28:f6:6d", "127.0.8.3", "2caf9c61"),
    "pi4": ("dc:a6:32:01:36:c2", "127.0.8.4", "10000000d9780558"),
    "pi5": ("d8:3a:dd:98:09:77", "127.0.8.5", "0c8f7e5cbd989ae1"),
}
FIRMWARE = {
    "bootcode.bin": 52_000,
    "start.elf": 90_000,
    "fixup.dat": 7_000,
    "start4.elf": 70_000,
    "fixup4.dat": 5_000,
    "bcm2710-rpi-3-b.dtb": 9_000,
    "bcm2711-rpi-4-b.dtb": 11_000,
    "bcm2712-rpi-5-b.dtb": 13_000,
    "overlays/overlay_map.dtb": 2_000,
    "overlays/disable-bt.dtbo": 1_000,
    # As an SD card's copy holds them; a Pi that got one would flash itself, or start an installer.
    "recovery.elf": 3_000,
    "recover4.elf": 3_000,
    "pieeprom.upd": 3_000,
    "pieeprom.sig": 100,
    "autoboot.txt": 50,
}


class Pi:
    """One board at the packets' level. Every look-up is checked when it is made."""

    def __init__(self, raw_client, server, model):
        self.address = MODELS[model][1]
        self.raw_client, self.server = raw_client, server

    def _ask(self, path, *options):
        client = self.raw_client(self.server.tftp_port, local=(self.address, 0))
        client.ask(path, *options)
        return client, client.receive()

    def none(self, path, *options):
        _, (opcode, code, _) = self._ask(path, *options)
        assert (opcode, code) == (5, 1), path

    def look(self, path, block=1024):
        """Is it there? A Pi 4 asks, hears the size and aborts."""
        client, (opcode, options) = self._ask(path, "tsize", 0, "blksize", block)
        assert opcode == 6, path
        client.error(0, "Early terminate")
        return int(options["tsize"])

    def get(self, path, block=1024):
        client, (opcode, options) = self._ask(path, "tsize", 0, "blksize", block)
        assert (opcode, options["blksize"]) == (6, str(block)), path
        client.ack(0)
        data = self._blocks(client, client.receive(), block)
        assert len(data) == int(options["tsize"])
        return data

    def get_plain(self, path):
        """As the Pi 3's boot ROM: no options, 512 octets."""
        client, first = self._ask(path)
        return self._blocks(client, first, 512)

    def _blocks(self, client, received, block):
        data, expected = b"", 1
        while True:
            while received[0] == 6 or received[1] == (expected - 1) % 65536:  # sent again, as we were slow to answer
                received = client.receive()
            opcode, number, part = received
            assert (opcode, number) == (3, expected % 65536)
            data += part
            client.ack(number)
            if len(part) < block:
                return data
            received, expected = client.receive(), expected + 1


class Farm:
    def __init__(self, folder, dhcp_port):
        self.files = {name: os.urandom(size) for name, size in FIRMWARE.items()}
        for name, data in self.files.items():
            path = folder / "firmware" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.kernel, self.initrd, self.overlay = os.urandom(60_000), os.urandom(30_000), os.urandom(500)
        for name, data in (("Image", self.kernel), ("initrd.img", self.initrd), ("can.dtbo", self.overlay)):
            (folder / name).write_bytes(data)
        profile = BootProfile(
            "raspberry",
            "arm64",
            folder / "Image",
            folder / "initrd.img",
            cmdline="console=serial0,115200",
            family="raspberry-pi",
            folder=folder / "firmware",
            overlays=(folder / "can.dtbo",),
        )
        (folder / "lab/pi4").mkdir(parents=True)
        (folder / "cache").mkdir()
        self.events = []
        self.server = NetbootServer(
            NetbootConfig(
                agent="desk",
                interface="lo",
                server_address=IPv4Address("127.0.0.1"),
                network=IPv4Network("127.0.0.0/8"),
                pool=None,
                mqtt_for_boards="10.77.0.1:1883",
                prefix="boardhand",
                joining_profile=None,
                dhcp_port=dhcp_port,
                tftp_port=0,
                staged=StagedTree(folder / "lab", (folder / "cache",)),
            ),
            [
                NetbootBoard(name, (mac,), IPv4Address(address), profile, serial=serial)
                for name, (mac, address, serial) in MODELS.items()
            ],
            on_event=self.events.append,
            secrets_state=None,
            save_secrets=lambda _: None,
        )

    async def sent(self, path):
        """That the server saw `path` off; its last ACK may still be on the way."""
        async with asyncio.timeout(60):
            while not any(isinstance(event, FileSent) and event.path == path for event in self.events):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def refused(self, *, missing):
        return [event.path for event in self.events if isinstance(event, FileRefused) and event.missing is missing]


@pytest.fixture
async def farm(tmp_path, unused_udp_port):
    farm = Farm(tmp_path, unused_udp_port)
    await farm.server.start()
    yield farm
    await farm.server.stop()


@pytest.fixture
def pi(farm, raw_client):
    return lambda model: Pi(raw_client, farm.server, model)


def _config(farm, text):
    assert text.decode().splitlines() == [
        "# boardhand: profile raspberry", "[all]", "arm_64bit=1", "kernel=kernel", "initramfs initrd followkernel",
        "dtoverlay=can",
    ]  # fmt: skip


async def _boots_pi3(farm, board):
    assert board.get_plain("bootcode.bin") == farm.files["bootcode.bin"]
    board.none("bootsig.bin")
    folder = "2caf9c61/"
    board.look(folder + "start.elf", 1468)
    board.none(folder + "autoboot.txt", "tsize", 0, "blksize", 1468)
    _config(farm, board.get(folder + "config.txt", 1468))
    board.none(folder + "recovery.elf", "tsize", 0, "blksize", 1468)
    assert board.get(folder + "start.elf", 1468) == farm.files["start.elf"]
    assert board.get(folder + "fixup.dat", 1468) == farm.files["fixup.dat"]
    for name in ("recovery.elf", "dt-blob.bin", "bootcfg.txt"):
        board.none(folder + name, "tsize", 0, "blksize", 1468)
    assert board.get(folder + "bcm2710-rpi-3-b.dtb", 1468) == farm.files["bcm2710-rpi-3-b.dtb"]
    return folder, 1468


async def _boots_pi4(farm, board):
    folder = "d9780558/"
    assert board.look(folder + "start4.elf") == len(farm.files["start4.elf"])
    _config(farm, board.get(folder + "config.txt"))
    for name in ("vl805.sig", "pieeprom.sig", "recover4.elf", "recovery.elf"):
        board.none(folder + name, "tsize", 0, "blksize", 1024)
    assert board.get(folder + "start4.elf") == farm.files["start4.elf"]
    assert board.get(folder + "fixup4.dat") == farm.files["fixup4.dat"]
    board.none(folder + "recovery.elf", "tsize", 0, "blksize", 1024)
    for name in ("dt-blob.bin", "recovery.elf", "bootcfg.txt"):
        board.look(folder + "config.txt")
        _config(farm, board.get(folder + "config.txt"))
        board.none(folder + name, "tsize", 0, "blksize", 1024)
    board.look(folder + "bcm2711-rpi-4-b.dtb")
    assert board.get(folder + "bcm2711-rpi-4-b.dtb") == farm.files["bcm2711-rpi-4-b.dtb"]
    return folder, 1024


async def _boots_pi5(farm, board):
    """It has no start4.elf: the boot loader reads config.txt, then the system's files."""
    folder = "bd989ae1/"  # the last half of its 16 digits
    board.none(folder + "pieeprom.sig", "tsize", 0, "blksize", 1468)
    _config(farm, board.get(folder + "config.txt", 1468))
    board.none(folder + "pieeprom.upd", "tsize", 0, "blksize", 1468)
    assert board.get(folder + "bcm2712-rpi-5-b.dtb", 1468) == farm.files["bcm2712-rpi-5-b.dtb"]
    return folder, 1468


@pytest.mark.parametrize(("model", "firmware"), [("pi3", _boots_pi3), ("pi4", _boots_pi4), ("pi5", _boots_pi5)])
async def test_a_boot_from_the_first_request_to_the_kernel(farm, pi, model, firmware):
    board = pi(model)
    folder, block = await _in_thread(firmware, farm, board)

    def rest():
        assert board.get(folder + "overlays/overlay_map.dtb", block) == farm.files["overlays/overlay_map.dtb"]
        assert board.get(folder + "overlays/can.dtbo", block) == farm.overlay
        assert board.get(folder + "initrd", block) == farm.initrd
        text = board.get(folder + "cmdline.txt", block).decode()
        assert text.startswith(f"console=serial0,115200 boardhand.board={model} boardhand.agent=desk ")
        assert text.count("\n") == 1
        board.look(folder + "kernel", block)
        board.none(folder + "armstub8-2712.bin", "tsize", 0, "blksize", block)
        assert board.get(folder + "kernel", block) == farm.kernel

    await asyncio.to_thread(rest)
    await farm.sent(folder + "kernel")
    assert farm.refused(missing=False) == []
    kernels = [event for event in farm.events if isinstance(event, FileSent) and event.role == "kernel"]
    assert [(event.board, event.size_bytes) for event in kernels] == [(model, len(farm.kernel))]


async def _in_thread(firmware, farm, board):
    """The client blocks; the server runs in this loop."""
    return await asyncio.to_thread(lambda: asyncio.run(firmware(farm, board)))


async def test_the_folder_is_dropped_where_it_holds_no_firmware(farm, pi):
    """An SD card starts U-Boot or nothing: without start4.elf a Pi asks once more without its folder, and is served."""
    for name in ("start4.elf", "start.elf"):
        (farm.server._boards["pi4"].profile.folder / name).unlink()
    board = pi("pi4")

    def boot():
        board.none("d9780558/start4.elf", "tsize", 0, "blksize", 1024)
        board.none("d9780558/start.elf", "tsize", 0, "blksize", 1024)
        _config(farm, board.get("config.txt"))
        board.none("recover4.elf", "tsize", 0, "blksize", 1024)
        board.none("start4.elf", "tsize", 0, "blksize", 1024)

    await asyncio.to_thread(boot)
    assert farm.refused(missing=True)[:2] == ["d9780558/start4.elf", "d9780558/start.elf"]


async def test_by_mac_and_not_by_anothers(farm, pi):
    """TFTP_PREFIX=2, and a Pi with another's number: it is told from whom it asks."""
    board = pi("pi4")

    def ask():
        assert board.get("dc-a6-32-01-36-c2/fixup4.dat") == farm.files["fixup4.dat"]
        for foreign in ("2caf9c61/cmdline.txt", "d8-3a-dd-98-09-77/cmdline.txt", "pi5/cmdline.txt", "12345678/x"):
            _, (opcode, code, _) = board._ask(foreign, "tsize", 0)
            assert (opcode, code) == (5, 2), foreign

    await asyncio.to_thread(ask)
    assert len(farm.refused(missing=False)) == 4


async def test_what_labgrid_staged(farm, pi, tmp_path):
    file = tmp_path / "cache/me/sum/zImage"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"staged" * 1000)
    (tmp_path / "lab/pi4/zImage").symlink_to(file)
    (tmp_path / "lab/pi4/out").symlink_to(tmp_path / "Image")
    (tmp_path / "cache/me/sum/chain").symlink_to(tmp_path / "Image")
    (tmp_path / "lab/pi4/chain").symlink_to(tmp_path / "cache/me/sum/chain")
    board, other = pi("pi4"), pi("pi5")

    def ask():
        assert board.get("pi4/zImage") == file.read_bytes()
        board.none("pi4/nothing")
        for client, path in ((board, "pi4/out"), (board, "pi4/chain"), (other, "pi4/zImage")):
            _, (opcode, code, _) = client._ask(path)
            assert (opcode, code) == (5, 2), path

    await asyncio.to_thread(ask)


async def test_a_link_in_the_folder_does_not_lead_out(farm, pi, tmp_path):
    folder = tmp_path / "firmware"
    (folder / "inside.bin").symlink_to("start4.elf")
    (folder / "out.bin").symlink_to(tmp_path / "initrd.img")
    (folder / "etc").symlink_to("/etc")
    board = pi("pi4")

    def ask():
        assert board.get("inside.bin") == farm.files["start4.elf"]
        for path in ("out.bin", "etc/passwd"):
            _, (opcode, code, _) = board._ask(path)
            assert (opcode, code) == (5, 2), path
        board.none("overlays")

    await asyncio.to_thread(ask)
