"""Tables of modes and flashes: what makes no sense, or leaves a board without a way back, is found at the start."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from agent.flash_settings import ActuatorTable, FlashTable, contradictions


class Board:
    """A board's tables."""

    never_off = False

    def __init__(self):
        self.actuators = {"strap": ActuatorTable(outlet="relays:1", settle_s=0)}
        self.modes = {
            "normal": ["strap off", "power cycle"],
            "flash": ["power off", "strap on", "power on"],
            "safe": ["power off", "strap off"],
        }
        table = {"tool": "own", "command": ["write", "{image}"], "mode": "flash", "safe_mode": "safe"}
        self.flash = {"system": FlashTable.model_validate(table)}


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"tool": "dfu-util"}, "device: dfu-util needs it"),
        ({"tool": "dfu-util", "device": "somewhere"}, "VENDOR:PRODUCT"),
        ({"tool": "dfu-util", "device": "0483:df11", "address": "0x08000000:leave"}, "gone before it is read back"),
        ({"tool": "bmaptool", "device": "sda"}, "path of a block device"),
        ({"tool": "fastboot"}, "partition: fastboot needs it"),
        ({"tool": "fastboot", "partition": "--help"}, "partition"),
        ({"tool": "own"}, "command"),
        ({"tool": "uuu", "command": ["x"]}, "command"),
        ({"tool": "own", "command": ["x", "{serial}"]}, "{serial} is not said"),
        ({"tool": "flashrom"}, "tool"),
    ],
)
def test_a_flash_that_makes_no_sense_is_found_at_the_start(table, why):
    with pytest.raises(ValidationError, match=why):
        FlashTable.model_validate(table)


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"outlet": "a:1", "mux": "sdwire"},
        {"mux": "usbsdmux"},
        {"outlet": "a"},
        {"outlet": "a:1", "needs": ["power"]},
    ],
)
def test_an_actuator_is_one_thing(table):
    with pytest.raises(ValidationError):
        ActuatorTable.model_validate(table)


def test_tables_that_contradict_each_other_are_named():
    def said(board, *others):
        boards = {"imx": board, **{f"b{number}": other for number, other in enumerate(others)}}
        return dict(contradictions(boards, {"relays"}, {"relays:9": "pi"}))

    good = Board()
    assert said(good) == {}
    assert "already actuator strap of board imx" in said(good, Board())["boards", "b0", "actuators", "strap"]
    fed = Board()
    fed.actuators = {"strap": ActuatorTable(outlet="relays:9"), "power": ActuatorTable(outlet="nobody:1")}
    found = said(fed)
    assert "feeds board pi" in found["boards", "imx", "actuators", "strap", "outlet"]
    assert "no controller 'nobody'" in found["boards", "imx", "actuators", "power", "outlet"]
    assert "call it otherwise" in found["boards", "imx", "actuators", "power"]
    bare = Board()
    bare.modes = {"normal": ["power cycle"], "flash": ["strap up"]}
    found = said(bare)
    assert "strap can be" in found["boards", "imx", "modes", "flash"]
    assert "no mode 'safe'" in found["boards", "imx", "flash", "system", "safe_mode"]
    always = Board()
    always.never_off = True
    assert "never_off" in said(always)["boards", "imx", "modes"]


def test_an_example_of_each_tool_is_taken():
    for table in (
        {"tool": "dfu-util", "device": "0483:DF11", "alt": "0", "address": "0x08000000:leave", "verify": False},
        {"tool": "fastboot", "serial": "udp:10.0.0.7", "partition": "boot", "product": "imx8mp"},
        {"tool": "uuu", "path": "1:2", "script": "emmc_all"},
        {"tool": "bmaptool", "device": "/dev/disk/by-id/usb-LinuxAut_sdmux_HS-SD_MMC_1234-0:0"},
        {"tool": "snagrecover", "soc": "stm32mp15"},
        {"tool": "own", "command": ["rkdeveloptool", "wl", "0x40", "{image}"]},
    ):
        assert TypeAdapter(FlashTable).validate_python(table).the_tool.argv
    assert Path(FlashTable(tool="bmaptool", device="/dev/sdx").values["device"]) == Path("/dev/sdx")
