"""Virtual relay boards, talked to with plain bytes, as their documents say, and as a program."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
import serial

from virtual_lab.serial_relay import FIRMWARE, VirtualRelayBoard


def receive(protocol, outlets, *messages):
    """What a board answers to each message, and the board."""
    board = VirtualRelayBoard(protocol, outlets)
    return [board._firmware.receive(board, message) for message in messages], board


def test_numato_echoes_answers_and_prompts():
    said, board = receive("numato", 4, b"\r", b"relay on 2\r", b"relay read 2\r", b"relay read 0\r", b"relay on 7\r",
                          b"nonsense\r", b"relay readall\r")  # fmt: skip
    assert said[:4] == [b"\n\r>", b"relay on 2\n\r>", b"relay read 2\n\ron\n\r>", b"relay read 0\n\roff\n\r>"]
    assert board.on == [False, False, True, False]
    assert said[4:] == [b"relay on 7\n\r>", b"nonsense\n\r>", b"relay readall\n\r>"], "answered by a prompt and nothing"
    said, _ = receive("numato", 16, b"relay on F\r", b"relay on 0\r", b"relay readall\r")
    assert said[2] == b"relay readall\n\r8001\n\r>"


def test_numato_takes_a_line_in_pieces():
    said, board = receive("numato", 4, b"rel", b"ay o", b"n 1", b"\r")
    assert said == [b"", b"", b"", b"relay on 1\n\r>"]
    assert board.on[1]


def test_lcus_minds_its_checksum_and_answers_as_its_kind():
    said, board = receive("lcus", 2, bytes.fromhex("a00201a3"), bytes.fromhex("a00101ff"), b"\xff")
    assert said == [b"", b"", b"\x00\x01"]
    assert board.on == [False, True]
    assert receive("lcus-lines", 2, bytes.fromhex("a00101a2"), b"\xff")[0][1] == b"CH1: ON\r\nCH2: OFF\r\n"
    assert receive("lcus-mute", 2, b"\xff")[0] == [b""]
    said, board = receive("lcus-feedback", 1, bytes.fromhex("a00103a4"), bytes.fromhex("a00105a6"), b"\xff")
    assert said == [bytes.fromhex("a00101a2"), bytes.fromhex("a00101a2"), b""]


def test_devantech():
    said, board = receive("devantech", 8, b"\x5a", b"\x65", b"\x6c", b"\x5b", b"\x6f\x5b", b"\x64\x5b\x6e\x5b")
    assert said == [b"\x08\x06", b"", b"", b"\x81", b"\x80", b"\xff\x00"]
    assert not any(board.on)


def test_conrad_is_deaf_until_it_was_set_up_and_out_of_step_after_a_lost_byte():
    frame, setup = bytes([2, 1, 0, 3]), bytes([1, 1, 0, 0])
    said, _ = receive("conrad", 8, frame, setup, frame, b"\x07" + frame, b"\0\0\0" + frame)
    assert said[0] == b""
    assert said[1] == bytes([254, 1, 11, 254 ^ 1 ^ 11, 1, 2, 0, 3])
    assert said[2] == bytes([253, 1, 0, 253 ^ 1])
    assert said[3] == b""
    assert said[4] == said[2]


@pytest.mark.parametrize("protocol", FIRMWARE)
async def test_a_plain_serial_program_reaches_it(protocol, tmp_path):
    async with VirtualRelayBoard(protocol, 4, link=tmp_path / "link") as board:
        with serial.Serial(board.device, timeout=0) as port:
            port.write(b"\x5a\r")
            async with asyncio.timeout(60):
                while len(board.received) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        board.vanish()
        assert not os.path.lexists(board.device)
        board.vanish()
        board.come_back()
        board.come_back()
        assert Path(board.device).exists()
    assert not os.path.lexists(board.device)


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "7", '{"do": 7}', '{"do": "jump"}', '{"do": "press"}', '{"do": "press", "outlet": 9, "on": true}',
     '{"do": "press", "outlet": 0, "on": true}', '{"do": "noise", "value": "x"}', '{"do": "noise"}'],
)  # fmt: skip
def test_bad_control_lines_are_answered(line):
    board = VirtualRelayBoard("numato", 4)
    answer = board.control(line)
    assert answer["ok"] is False
    assert answer["error"]
    assert board.on == [False] * 4


async def test_as_a_program(tmp_path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "virtual_lab.serial_relay", "--protocol", "devantech", "--outlets", "8", "--link",
        str(tmp_path / "relays"), "--stop-at-eof", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip

    async def ask(line):
        process.stdin.write(line.encode() + b"\n")
        return json.loads(await process.stdout.readline())

    async with asyncio.timeout(60):
        ready = json.loads(await process.stdout.readline())
        assert ready == {"ready": True, "device": str(tmp_path / "relays")}
        assert (await ask('{"do": "press", "outlet": 3, "on": true}'))["on"][2] is True
        with serial.Serial(ready["device"], timeout=5) as port:
            port.write(b"\x5b")
            assert await asyncio.to_thread(port.read, 1) == b"\x04"
        assert (await ask('{"do": "silent", "value": true}'))["ok"]
        assert (await ask('{"do": "state"}'))["on"] == [False, False, True, *[False] * 5]
        process.stdin.close()
        assert await process.wait() == 0
    assert not os.path.lexists(tmp_path / "relays")
