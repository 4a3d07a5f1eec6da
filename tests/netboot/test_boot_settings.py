"""The settings of boot files: faults are told when they are read, with the key."""

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from agent import netboot_bridge
from agent.netboot_settings import ProfileTable
from agent.settings import BoardTable, load
from daemon.settings_file import SettingsError
from netboot.boot_templates import FIELDS, parse
from netboot.profile import Arch, Family

PAGE = (Path(__file__).parents[2] / "docs/netboot.md").read_text(encoding="utf-8")

HEAD = """
[agent]
name = "desk"
state_dir = "{folder}/state"
[netboot]
interface = "v0"
address = "10.77.0.1/24"
mqtt_for_boards = "10.77.0.1:1883"
labgrid_tftp = "{folder}/lab"
[controllers.demo]
driver = "netio"
url = "http://127.0.0.1:9"
"""
BOARD = """
[boards.{name}]
feed = ["demo:{number}"]
macs = ["52:54:00:77:00:0{number}"]
address = "10.77.0.1{number}"
profile = "p"
"""


@pytest.fixture
def read(tmp_path):
    for name in ("Image", "initrd", "rtos.bin", "can.dtbo", "spi.dtbo"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "fw").mkdir()
    (tmp_path / "fw/bootaa64.efi").write_bytes(b"MZ")
    (tmp_path / "mine.ipxe").write_text("#!ipxe\nkernel @{kernel} @{cmdline}\n")
    (tmp_path / "own.ipxe").write_text("#!ipxe\n# @{serial}\nkernel @{kernel} @{cmdline}\n")
    (tmp_path / "bad.ipxe").write_text("#!ipxe\n\nkernel @{kernle}\n")
    (tmp_path / "poor.cfg").write_text("linux /kernel quiet\n")

    def read(profile, board="", other=""):
        text = HEAD + f'[profiles.p]\nkernel = "{{folder}}/Image"\n{profile}\n'
        text += BOARD.format(name="b1", number=1) + board + "\n" + BOARD.format(name="b2", number=2) + other
        path = tmp_path / "boardhand.toml"
        path.write_text(text.replace("{folder}", str(tmp_path)))
        return load(path)

    return read


def test_what_netboot_is_told(read, tmp_path):
    settings = read(
        'family = "auto"\nfolder = "{folder}/fw"\noverlays = ["{folder}/can.dtbo"]\nconfig_txt = ["enable_uart=1"]\n'
        'templates = { "boot.ipxe" = "{folder}/mine.ipxe" }\nfiles = { "a/rtos.bin" = "{folder}/rtos.bin" }\n',
        'overlays = ["{folder}/spi.dtbo"]\nserial = "10000000d9780558"\nlabgrid_folder = "board-23"\n'
        'templates = { "boot.ipxe" = "{folder}/own.ipxe", "user-data" = "{folder}/mine.ipxe" }\n',
    )
    one, two = netboot_bridge.boards(settings)
    assert (one.serial, one.staged, two.serial, two.staged) == ("10000000d9780558", "board-23", None, "b2")
    assert [path.name for path in one.profile.overlays] == ["can.dtbo", "spi.dtbo"]
    assert [path.name for path in two.profile.overlays] == ["can.dtbo"]
    assert {t.name: t.path.name for t in one.profile.templates} == {"boot.ipxe": "own.ipxe", "user-data": "mine.ipxe"}
    assert {t.name: t.path.name for t in two.profile.templates} == {"boot.ipxe": "mine.ipxe"}
    assert one.profile.files == (("a/rtos.bin", tmp_path / "rtos.bin"),)
    assert one.profile.config_txt == ("enable_uart=1",)
    assert dict(one.profile.loaders)["bootaa64.efi"] == tmp_path / "fw/bootaa64.efi"
    staged = netboot_bridge.config(settings).staged
    assert (staged.root, staged.caches) == (tmp_path / "lab", (Path("/var/cache/labgrid"),))


def test_raw(read, tmp_path):
    profile = netboot_bridge.boards(read('family = "raw"\nboot_file = "rtos.img"'))[0].profile
    assert profile.boot_file == "rtos.img"
    assert profile.kernel == tmp_path / "Image"


@pytest.mark.parametrize(
    ("profile", "board", "words"),
    [
        ('arch = "mips"', "", "profiles.p.arch"),
        ('family = "bios"', "", "profiles.p.family"),
        ('templates = { "boot.ipxe" = "{folder}/bad.ipxe" }', "", r"bad\.ipxe:3: unknown field @\{kernle\}"),
        ('templates = { "grub.cfg" = "{folder}/poor.cfg" }', "", r"poor\.cfg: grub\.cfg misses @\{cmdline\}"),
        ('templates = { "boot.ipxe" = "{folder}/none" }', "", "none is not there"),
        ('templates = { "boot.ipxe" = "{folder}/own.ipxe" }', "", r"boards\.b1.*the board has no serial"),
        ("", 'templates = { "grub.cfg" = "{folder}/poor.cfg" }', r"boards\.b1.*misses"),
        ('overlays = ["{folder}/none.dtbo"]', "", "none.dtbo is not there"),
        ('overlays = ["{folder}/can.dtbo"]', 'overlays = ["{folder}/can.dtbo"]', r"boards\.b1.*same name"),
        ('folder = "{folder}/none"', "", "no folder"),
        ('files = { "../x" = "{folder}/rtos.bin" }', "", "files"),
        ('family = "efi-stub"\ncmdline = "quiet"', "", "no command line"),
        ('family = "grub"\narch = "arm"', "", "install one"),
        ("", 'serial = "xyz"', r"boards\.b1\.serial"),
        ("", 'labgrid_folder = "../x"', r"boards\.b1\.labgrid_folder"),
    ],
)
def test_faults(read, profile, board, words):
    with pytest.raises(SettingsError, match=words):
        read(profile, board)


def test_one_serial_number_for_two(read):
    """The Pi 5's has 16 digits, and its folder only the last 8."""
    with pytest.raises(SettingsError, match="already the serial number of b1"):
        read("", 'serial = "d9780558"', 'serial = "0c8f7e5cD9780558"')


def test_too_large_for_a_raspberry_pi(read, tmp_path):
    with (tmp_path / "Image").open("wb") as file:
        file.truncate(97_000_000)
    assert read("")
    with pytest.raises(SettingsError, match="97 MB; a Raspberry Pi's TFTP ends at 96 MB"):
        read('family = "raspberry-pi"')


# --- docs/netboot.md ---


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_the_pages_examples_use_keys_that_exist(block):
    """Their paths are nobody's, so the tables are not read whole (tests/agent/test_documented_settings.py reads the
    others)."""
    tables = tomllib.loads(block)
    for name, table in tables.get("profiles", {}).items():
        assert table.keys() <= ProfileTable.model_fields.keys(), name
        assert table.get("arch", "arm64") in get_args(Arch)
        assert table.get("family", "auto") in get_args(Family)
        assert "kernel" in table
    for name, table in tables.get("boards", {}).items():
        assert table.keys() <= BoardTable.model_fields.keys(), name


def test_the_page_says_what_there_is():
    keys = set(re.findall(r"(?m)^\| (`\w.*?`) \|", PAGE))
    named = {name for row in keys for name in re.findall(r"`([\w-]+)`", row)}
    new = {"arch", "family", "folder", "files", "templates", "overlays", "boot_file", "config_txt", "uboot_env"}
    assert new <= ProfileTable.model_fields.keys()
    assert new | set(get_args(Family)) | set(FIELDS) <= named
    template = re.search(r"(?ms)^```\n(#!ipxe\necho.*?)^```", PAGE)
    assert parse("boot.ipxe", Path("docs/netboot.md"), template[1]).carries_secret
