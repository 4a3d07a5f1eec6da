from pathlib import Path

import pytest

from agent.settings import load
from daemon.settings_file import SettingsError

GOOD = """\
[agent]
name = "lab"
state_dir = "{folder}/state"

[mqtt]
url = "mqtt://127.0.0.1:1883"

[netboot]
interface = "br0"
address = "10.77.0.1/24"
mqtt_for_boards = "10.77.0.1:1883"
pool = ["10.77.0.100", "10.77.0.150"]

[profiles.debian]
kernel = "{folder}/vmlinuz"

[controllers.rack]
driver = "command"
on = ["true"]
off = ["true"]

[boards.pi]
feed = ["rack:1"]
macs = ["52:54:00:77:00:01"]
address = "10.77.0.11"
profile = "debian"
labels = {{ arch = "arm64", memory_mb = 2048 }}

[boards.bone]
feed = ["rack:2"]

[broker]
idle_s = 5
"""


def write(folder: Path, old: str = "", new: str = "") -> Path:
    (folder / "vmlinuz").write_bytes(b"kernel")
    text = GOOD.format(folder=folder)
    assert old in text
    path = folder / "farm.toml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_a_good_file(tmp_path: Path) -> None:
    settings = load(write(tmp_path))
    assert settings.boards["pi"].labels == {"arch": "arm64", "memory_mb": 2048}
    assert settings.feeds()["pi"].outlets == ["rack:1"]
    assert settings.boards["pi"].registers
    assert not settings.boards["bone"].registers


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('feed = ["rack:1"]', 'feed = ["rak:1"]', ":23: boards.pi.feed: there is no controller 'rak'; known are: rack"),
        ('feed = ["rack:2"]', 'feed = ["rack:1"]', ":30: boards.bone.feed: outlet rack:1 already feeds board pi"),
        ('feed = ["rack:2"]', 'feed = ["rack"]', ":30: boards.bone.feed: 'rack' is not CONTROLLER:OUTLET"),
        ('address = "10.77.0.11"', 'address = "10.78.0.11"', ":25: boards.pi.address: 10.78.0.11 is not a free"),
        ('address = "10.77.0.11"', 'address = "10.77.0.101"', ":25: boards.pi.address: 10.77.0.101 is not a free"),
        ('profile = "debian"', 'profile = "suse"', ":26: boards.pi.profile: there is no profile 'suse'"),
        ('macs = ["52:54:00:77:00:01"]', 'macs = ["x"]', ":24: boards.pi.macs.0: 'x' is not a MAC"),
        ('macs = ["52:54:00:77:00:01"]\n', "", ":22: boards.pi: a board with a profile needs macs"),
        ("vmlinuz", "nolinuz", "nolinuz is not there, or is no file"),
        (
            "[profiles.debian]",
            '[profiles.debian]\ncmdline = "a\\nb"',
            "profiles.debian: profile debian: cmdline must be",
        ),
        ("[boards.bone]", "[boards.Bone]", "boards.Bone"),
        ('name = "lab"', "", ":1: agent.name: Field required"),
        ('pool = ["10.77.0.100", "10.77.0.150"]', 'joining = "open"', "joining = open needs pool and joining_profile"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(write(tmp_path, old, new))
    message = str(caught.value)
    assert expected in message
    assert "farm.toml:" in message
    assert "\n" not in message
