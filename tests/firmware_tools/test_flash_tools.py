"""The tools: how they are called, how they are heard, and that nothing of them is left behind. fastboot and bmaptool
are Debian's own; the board in fastboot mode is `virtual_lab.fastboot_device`, on UDP as U-Boot's."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_tools.flash import child, flasher, image_check
from firmware_tools.flash.child import Lines
from firmware_tools.flash.errors import (
    DeviceMissingError,
    ImageError,
    ModeError,
    NotVerifiedError,
    ToolFailedError,
    ToolMissingError,
)
from firmware_tools.flash.flasher import Job
from firmware_tools.flash.image_check import Wanted
from firmware_tools.flash.muxes import MUXES, Mux
from firmware_tools.flash.tools import TOOLS, far, fill, own_tool

PATIENCE_S = 40.0


@pytest.mark.parametrize(
    ("tool", "values", "argv"),
    [
        (
            "dfu-util",
            {"device": "0483:df11", "serial": "A 1", "image": "/i", "address": "0x8000000:leave"},
            ["dfu-util", "-d", "0483:df11", "-S", "A 1", "-s", "0x8000000:leave", "-D", "/i"],
        ),
        ("dfu-util", {"device": "0483:df11", "image": "/i"}, ["dfu-util", "-d", "0483:df11", "-D", "/i"]),
        (
            "fastboot",
            {"serial": "udp:10.0.0.3", "partition": "boot", "image": "/{serial}"},
            ["fastboot", "-s", "udp:10.0.0.3", "flash", "boot", "/{serial}"],
        ),
        ("uuu", {"path": "1:2", "script": "emmc", "image": "/i"}, ["uuu", "-v", "-m", "1:2", "-b", "emmc", "/i"]),
        (
            "bmaptool",
            {"nobmap": "--nobmap", "image": "/i", "device": "/dev/sdx"},
            ["bmaptool", "copy", "--nobmap", "/i", "/dev/sdx"],
        ),
        (
            "bmaptool",
            {"nobmap": "", "bmap": "/m", "image": "/i", "device": "/dev/sdx"},
            ["bmaptool", "copy", "--bmap", "/m", "/i", "/dev/sdx"],
        ),
        (
            "snagflash",
            {"protocol": "dfu", "device": "0483:df11", "alt": "0", "image": "/i"},
            ["snagflash", "-P", "dfu", "-p", "0483:df11", "-D", "0:/i"],
        ),
        ("snagrecover", {"soc": "stm32mp1", "image": "/i"}, ["snagrecover", "-s", "stm32mp1", "-f", "/i"]),
    ],
)
def test_a_command_is_filled_once_and_what_is_not_set_is_left_out(tool, values, argv):
    assert fill(tool, TOOLS[tool].argv, values) == argv


def test_what_a_tool_cannot_do_without_is_named():
    with pytest.raises(ToolMissingError, match="dfu-util: needs 'device'"):
        fill("dfu-util", TOOLS["dfu-util"].argv, {"image": "/i"})
    assert fill("own", own_tool(["rk", "wl", "0x40", "{image}"]).argv, {"image": "/i"}) == ["rk", "wl", "0x40", "/i"]


@pytest.mark.parametrize(
    ("tool", "line", "found"),
    [
        ("dfu-util", "Download\t[=====                    ]  20%        20480 bytes", ("write", 20.0)),
        ("dfu-util", "Download\t[=========================] 100%       100000 bytes", ("write", 100.0)),
        ("dfu-util", "Upload\t[=                        ]   4%         4096 bytes", ("read back", 4.0)),
        ("dfu-util", "Erase   \t[==                       ]   8%         4096 bytes", ("erase", 8.0)),
        ("dfu-util", "Copyright 2010-2021 Tormod Volden and Stefan Schmidt", None),
        ("fastboot", "Sending 'boot' (2929 KB)                           OKAY [  1.143s]", ("send", None)),
        ("fastboot", "Sending sparse 'system' 2/5 (65536 KB)", ("send", 40.0)),
        ("fastboot", "Writing 'boot'                                     OKAY [  0.004s]", ("write", None)),
        ("bmaptool", "bmaptool: info: 37% copied", ("write", 37.0)),
        ("uuu", "1:3     2/ 7 [=======>         ] 45% SDPS: boot -f flash.bin", ("write", 45.0)),
    ],
)
def test_how_far_a_tool_is_stands_in_its_lines(tool, line, found):
    assert far(TOOLS[tool].patterns, line) == found


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_lines_are_the_same_however_they_are_chopped(pieces):
    whole, chopped = Lines(), Lines()
    data = b"".join(pieces)
    expected = whole.feed(data) + whole.end()
    found = [line for piece in pieces for line in chopped.feed(piece)] + chopped.end()
    assert found == expected
    assert all(line.isprintable() and line == line.strip() for line in found)


def test_a_flood_without_an_end_is_bounded():
    lines = Lines()
    for _ in range(50):
        for line in lines.feed(b"x" * 60_000):
            assert len(line) <= child.MAX_LINE_CHARACTERS
            lines.keep(line)
    assert len(lines.kept) <= child.KEPT_LINES
    assert len(lines._open) <= child.MAX_LINE_CHARACTERS


def script(text):
    return [sys.executable, "-S", "-E", "-c", text]


async def test_words_and_exit_code_are_kept():
    heard = []
    ended = await child.run(
        script("print('a\\rb', flush=True); raise SystemExit('no device')"), heard.append, PATIENCE_S
    )
    assert (ended.code, ended.words, heard) == (1, ("a", "b", "no device"), ["a", "b", "no device"])
    with pytest.raises(ToolMissingError, match="boardhand-none: is not there; install it"):
        await child.run(["boardhand-none"], heard.append, 1, package="it")


FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-S", "-E", "-c", "import time; time.sleep(300)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(300)
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def all_gone(pids):
    end = time.monotonic() + PATIENCE_S
    while any(map(alive, pids)):
        assert time.monotonic() < end, f"still there: {pids}"
        await asyncio.sleep(0.02)


async def begun(heard):
    end = time.monotonic() + PATIENCE_S
    while not heard:
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    return [int(word) for word in heard[0].split()]


async def test_a_tool_that_does_not_end_is_killed_with_its_children(monkeypatch):
    monkeypatch.setattr(child, "TERM_GRACE_S", 0.1)
    heard = []
    running = asyncio.create_task(child.run(script(FAMILY), heard.append, 2.0))
    pids = await begun(heard)
    ended = await running
    assert (ended.code, "did not end within 2 s" in ended.last_words) == (None, True)
    await all_gone(pids)


async def test_a_cancelled_tool_is_dead_when_that_is_told(monkeypatch):
    monkeypatch.setattr(child, "TERM_GRACE_S", 0.1)
    heard = []
    running = asyncio.create_task(child.run(script(FAMILY), heard.append, 300))
    pids = await begun(heard)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await all_gone(pids)


def test_a_tool_dies_with_a_killed_agent():
    agent = subprocess.Popen(
        script(f"import asyncio, sys; sys.path.insert(0, {str(Path(child.__file__).parents[2])!r})\n"
               "from firmware_tools.flash import child\n"
               f"asyncio.run(child.run({script('import os, time; print(os.getpid(), flush=True); time.sleep(300)')!r},"
               " lambda line: print(line, flush=True), 300))"),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with agent:
        pid = int(agent.stdout.readline())
        assert alive(pid)
        agent.kill()
    end = time.monotonic() + PATIENCE_S
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.02)


# --- fastboot -------------------------------------------------------------------------------------------------------


class Device:
    """A board in fastboot mode."""

    def __init__(self, folder, *more):
        self.flash = folder / "chip"
        command = [sys.executable, "-m", "virtual_lab.fastboot_device", "--port", "0", "--flash", str(self.flash)]
        command += ["--partition", "boot=4000000", "--product", "virt-imx", *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(child.__file__).parents[2])
        self.serial = f"udp:127.0.0.1:{json.loads(self.process.stdout.readline())['port']}"

    def off(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def plugged(tmp_path):
    devices = []

    def plug(*more):
        devices.append(Device(tmp_path, *more))
        return devices[-1]

    yield plug
    for device in devices:
        device.off()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "boot.img"
    path.write_bytes(os.urandom(600_000))
    return image_check.look(path, Wanted("virt", image_check.Format.FASTBOOT))


def fastboot(image, device, tmp_path, **more):
    values = {"serial": device.serial, "partition": "boot"}
    return Job(TOOLS["fastboot"], image, values, deadline_s=PATIENCE_S, scratch=tmp_path, **more)


async def test_fastboot_writes_over_a_network_that_loses_datagrams(plugged, image, tmp_path):
    device, told = plugged("--drop", "211"), []
    job = fastboot(image, device, tmp_path, product="virt-imx", reset=True)
    written = await flasher.flash(job, lambda *words: told.append(words))
    assert (device.flash / "boot").read_bytes() == image.path.read_bytes()
    assert written.verified == "fastboot says so"
    assert list(dict.fromkeys(stage for stage, *_ in told)) == ["probe", "write", "send", "reset"]


async def test_another_product_is_not_written_to(plugged, image, tmp_path):
    device = plugged()
    with pytest.raises(ImageError, match="the device is 'virt-imx', and the settings say product = 'imx8mp'"):
        await flasher.flash(fastboot(image, device, tmp_path, product="imx8mp"), lambda *_: None)
    assert not (device.flash / "boot").exists()


async def test_power_that_goes_in_the_middle_is_said_and_mended_by_the_next_flash(plugged, image, tmp_path):
    device = plugged("--cut-after", "300000")
    job = fastboot(image, device, tmp_path)
    cut = asyncio.create_task(flasher.flash(job, lambda *_: None))
    assert await asyncio.to_thread(device.process.wait, PATIENCE_S) == 1
    with pytest.raises(ToolFailedError, match="may hold a part of the image: flash again"):
        await cut
    half = (device.flash / "boot").read_bytes()
    assert half == image.path.read_bytes()[: len(half)]
    assert 250_000 < len(half) < 350_000
    device = plugged()
    await flasher.flash(fastboot(image, device, tmp_path), lambda *_: None)
    assert (device.flash / "boot").read_bytes() == image.path.read_bytes()


async def test_what_the_device_refuses_is_told_in_its_words(plugged, tmp_path):
    path = tmp_path / "large.img"
    path.write_bytes(b"x" * 5000)
    large = image_check.look(path, Wanted("virt"))
    with pytest.raises(ToolFailedError, match="partition 'boot' has 4000 octets"):
        await flasher.flash(fastboot(large, plugged("--partition", "boot=4000"), tmp_path), lambda *_: None)


async def test_a_device_that_is_not_there_is_not_waited_for_for_ever(plugged, image, tmp_path):
    device = plugged()
    device.off()
    with pytest.raises(DeviceMissingError, match=r"waited 0\.5 s for the device; look at its cable"):
        await flasher.flash(fastboot(image, device, tmp_path, find_s=0.5), lambda *_: None)


# --- bmaptool -------------------------------------------------------------------------------------------------------


def disk_job(tmp_path, *, bmap=True):
    path, card = tmp_path / "card.img", tmp_path / "card"
    with path.open("wb") as out:
        out.write(os.urandom(300_000))
        out.seek(2_000_000)
        out.write(os.urandom(100_000))
        out.truncate(4 << 20)
    if bmap:
        command = ["bmaptool", "create", "-o", f"{path}.bmap", str(path)]
        subprocess.run(command, check=True, timeout=PATIENCE_S, capture_output=True)
    card.write_bytes(b"\xee" * (4 << 20))
    image = image_check.look(path, Wanted("virt", image_check.Format.DISK))
    return Job(TOOLS["bmaptool"], image, {"device": str(card)}, deadline_s=PATIENCE_S, scratch=tmp_path), card


@pytest.mark.parametrize("bmap", [True, False])
async def test_bmaptool_writes_tells_how_far_it_is_and_the_card_is_read_back(tmp_path, bmap):
    job, card = disk_job(tmp_path, bmap=bmap)
    told = []
    written = await flasher.flash(job, lambda *words: told.append(words))
    assert card.read_bytes()[:300_000] == job.image.path.read_bytes()[:300_000]
    assert written.verified.startswith("read back, ")
    assert ("agree with the map" in written.verified) is bmap
    assert any(percent == 100 for stage, percent, _ in told if stage == "write")


async def test_a_card_that_forgets_is_found(tmp_path, monkeypatch):
    job, card = disk_job(tmp_path)
    write = flasher._write

    async def forgetful(*given):
        ended = await write(*given)
        with card.open("r+b") as out:
            out.seek(4096)
            out.write(b"not what was written")
        return ended

    monkeypatch.setattr(flasher, "_write", forgetful)
    with pytest.raises(NotVerifiedError, match="is the card bad"):
        await flasher.flash(job, lambda *_: None)


async def test_a_card_that_is_not_there_is_said(tmp_path):
    job, card = disk_job(tmp_path)
    missing = Job(job.tool, job.image, {"device": str(card.parent / "no" / "card")}, PATIENCE_S, scratch=tmp_path)
    with pytest.raises(DeviceMissingError, match="did not find the device"):
        await flasher.flash(missing, lambda *_: None)


# --- SD muxes -------------------------------------------------------------------------------------------------------

MUX_PROGRAM = """#!/bin/sh
# As the makers' programs behave: usbsdmux says a word, sd-mux-ctrl a sentence.
state=$(cat "{state}")
case "$*" in
*" get") echo "$state" ;;
*--status) [ "$state" = dut ] && echo "SD connected to: DUT" || echo "SD connected to: TS" ;;
*" dut"|*--dut) echo dut >"{state}" ;;
*" host"|*--ts) echo host >"{state}" ;;
*" off") echo "usbsdmux: no such device" >&2; exit 1 ;;
esac
"""


@pytest.mark.parametrize(("kind", "program"), [("usbsdmux", "usbsdmux"), ("sdwire", "sd-mux-ctrl")])
async def test_a_mux_is_switched_and_read_back(tmp_path, monkeypatch, kind, program):
    (tmp_path / "state").write_text("dut\n")
    (tmp_path / program).write_text(MUX_PROGRAM.replace("{state}", str(tmp_path / "state")))
    (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    mux = Mux("sd", MUXES[kind], "/dev/sg3")
    assert await mux.look() == "board"
    await mux.switch("host")
    assert await mux.look() == "host"
    await mux.switch("board")
    assert await mux.look() == "board"
    with pytest.raises(ModeError, match="no such device" if kind == "usbsdmux" else "cannot be off"):
        await mux.switch("off")


async def test_a_mux_without_its_program_says_what_to_install():
    mux = Mux("sd", MUXES["sdwire3"], "bdgrd_sdwirec_522")
    assert await mux.look() is None
    with pytest.raises(ModeError, match=r"sdwire: is not there.*it comes with sdwire \(PyPI\)"):
        await mux.switch("host")
