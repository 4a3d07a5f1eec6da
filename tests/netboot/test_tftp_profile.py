"""A profile says what the TFTP client of its boards can take, and the worker is told."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.netboot_settings import ProfileTable
from netboot.profile import BootProfile
from netboot.tftp_limits import NO_LIMITS, Limits
from netboot.tftp_process import SendBytes, SendFile, _answer_line


@pytest.mark.parametrize(
    ("keys", "limits"),
    [
        ({"max_window": 4}, Limits(max_window=4)),
        ({"max_block_bytes": 1024, "rollover": 1}, Limits(max_block_bytes=1024, rollover=1)),
        ({"rollover": "never", "requests_per_s": 0}, Limits(rollover=None, requests_per_s=0)),
    ],
)
def test_the_settings_say_it(tmp_path, keys, limits):
    kernel = tmp_path / "Image"
    kernel.write_bytes(b"k")
    assert ProfileTable(kernel=kernel, tftp=keys).boot_profile("p").tftp_limits == limits


@pytest.mark.parametrize("keys", [{"max_window": 0}, {"max_window": 65}, {"max_block_bytes": 7}, {"rollover": 2},
                                  {"requests_per_s": -1}, {"window": 4}])  # fmt: skip
def test_what_cannot_be_is_told(tmp_path, keys):
    kernel = tmp_path / "Image"
    kernel.write_bytes(b"k")
    with pytest.raises(ValidationError, match=next(iter(keys))):
        ProfileTable(kernel=kernel, tftp=keys)


def test_a_raspberry_pi_counts_to_65535():
    assert BootProfile("p", "arm64", Path("/k")).tftp_limits == NO_LIMITS
    assert BootProfile("p", "arm64", Path("/k"), family="raspberry-pi").tftp_limits == Limits(rollover=None)


def test_the_worker_is_told():
    limits = Limits(max_window=4, rollover=None, requests_per_s=7)
    for answer in (SendFile(Path("/d/f"), limits), SendBytes(b"", limits)):
        line = _answer_line(1, answer)
        assert {key: line.get(key) for key in ("max_window", "rollover", "requests_per_s", "max_block")} == {
            "max_window": 4, "rollover": -1, "requests_per_s": 7, "max_block": None,
        }  # fmt: skip
    assert _answer_line(1, SendBytes(b"")).keys() == {"answer", "data"}
