"""A QEMU board: power by the agent's own driver, its console, its end."""

import asyncio
import os
import socket

import pytest

from agent.power.drivers.qmp import OUTLET, QmpDriver
from agent.power.kinds.qmp import QmpSettings
from firmware_tools.image import device_tree
from virtual_lab import lab_tools, qemu_board
from virtual_lab.lab_tools import LabTools, MissingToolError, find_tools
from virtual_lab.namespace import LabError
from virtual_lab.network import Cable, CableKind
from virtual_lab.qemu_board import QemuBoard, QemuBoardSpec, QemuError
from wire.phases import Power

MAC = "52:54:00:77:00:01"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    path = tmp_path_factory.mktemp("tree") / "virt.dtb"
    qemu_board.dump_device_tree(find_tools(), path)
    return path


@pytest.fixture
def cable():
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        yield Cable(CableKind.VETH, "none", far.fileno())


def test_the_tree_is_small_and_has_what_linux_needs(tree):
    assert tree.stat().st_size < 16 * 1024
    names = {child.name for child in device_tree.read(tree.read_bytes()).root.children}
    assert {"chosen", "cpus", "pl011@9000000"} <= names
    assert not any(name.startswith("pl061") for name in names), "not there when firmware is given; Linux dies of it"


async def read_until(reader, wanted, seconds=60.0):
    text = b""
    async with asyncio.timeout(seconds):
        while wanted not in text:
            text += await reader.read(4096)
    return text


@pytest.mark.parametrize("own_environment", [True, False])
async def test_power_and_console(tree, cable, tmp_path, own_environment):
    spec = QemuBoardSpec("virt-1", MAC, tmp_path / "b", tmp_path, own_environment)
    qemu_board.prepare(spec, tree)
    board = QemuBoard(spec, find_tools(), cable)
    await board.start()
    try:
        pid = board.pid
        assert pid is not None
        driver = QmpDriver("vpower-1", QmpSettings(driver="qmp", socket=spec.qmp_socket))
        assert await driver.get(OUTLET) is Power.OFF
        reader, writer = await asyncio.open_unix_connection(spec.console_socket)
        await driver.set(OUTLET, True)
        assert await driver.get(OUTLET) is Power.ON
        text = await read_until(reader, b"BOOTP broadcast" if own_environment else b"Hit any key to stop autoboot")
        where = b"Loading Environment from Flash... OK"
        assert (where in text) is own_environment
        if not own_environment:
            writer.write(b"\n\n")
            await read_until(reader, b"=> ")
            writer.write(b"echo $ethaddr\n")
            await read_until(reader, MAC.encode() + b"\r\n")
        await driver.set(OUTLET, False)
        assert await driver.get(OUTLET) is Power.OFF
        await driver.set(OUTLET, True)
        async with asyncio.timeout(60):
            while spec.console_log.read_bytes().count(b"U-Boot 20") < 2:  # it begins anew
                await reader.read(4096)
        writer.close()
    finally:
        await board.stop()
    assert board.pid is None
    assert not spec.qmp_socket.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(("built_in", "flash"), [(b"\0boot_script_dhcp=boot.scr.uimg\0", False), (b"\0", True)])
def test_a_board_asks_for_a_script_whatever_is_built_into_its_uboot(tree, cable, tmp_path, built_in, flash):
    uboot = tmp_path / "u-boot.bin"
    uboot.write_bytes(b"boot_script_dhcp\0" + built_in)
    spec = QemuBoardSpec("virt-2", MAC, tmp_path / "b", tmp_path, own_environment=False)
    spec.folder.mkdir()
    spec.environment_flash.write_bytes(b"of another release")
    qemu_board.prepare(spec, tree, uboot)
    assert spec.environment_flash.exists() is flash
    if flash:
        assert b"\0boot_script_dhcp=boot.scr.uimg\0" in spec.environment_flash.read_bytes()
    assert ("-drive" in qemu_board.command(spec, LabTools(tmp_path, uboot), cable)) is flash


async def test_a_qemu_that_does_not_start_says_why(tree, cable, tmp_path):
    spec = QemuBoardSpec("virt-1", MAC, tmp_path / "b", tmp_path)
    qemu_board.prepare(spec, tree)
    spec.environment_flash.unlink()
    with pytest.raises(QemuError, match=r"board virt-1: QEMU does not start: .*environment\.img"):
        await QemuBoard(spec, find_tools(), cable).start()


def test_missing_programs_are_named_with_their_packages(tmp_path):
    with pytest.raises(MissingToolError, match=r"aarch64 is not installed: apt-get install .*qemu-system-arm"):
        find_tools({"PATH": str(tmp_path)})
    with pytest.raises(MissingToolError, match="BOARDHAND_UBOOT_ARM64=/none is not there"):
        find_tools({"PATH": "/usr/bin", "BOARDHAND_UBOOT_ARM64": "/none"})


def test_a_socket_path_that_is_too_long_is_refused_in_words(tree, cable, tmp_path):
    deep = tmp_path / ("d" * 100)
    spec = QemuBoardSpec("virt-1", MAC, deep, deep)
    with pytest.raises(LabError, match="choose a shorter --dir"):
        qemu_board.command(spec, LabTools(tmp_path, tmp_path), cable)


def test_something_that_is_no_socket_is_not_removed(tmp_path):
    (tmp_path / "x").write_text("precious")
    with pytest.raises(LabError, match="it is no socket"):
        lab_tools.remove_stale_socket(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "precious"
