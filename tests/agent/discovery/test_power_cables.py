"""Power cables that are asked who they are: the real firmware on a pty, and ports where something else is."""

import asyncio
import os
import pty

import pytest

from agent.discovery.findings import Problem
from agent.discovery.power_cables import AskedPort, ask
from agent.power.kinds.power_cable import PowerCableSettings
from virtual_lab.power_cable import VirtualPowerCable


@pytest.fixture
def patient(monkeypatch):
    monkeypatch.setattr("agent.discovery.power_cables.REPLY_S", 20.0)


async def test_a_cable_tells_who_it_is(tmp_path, patient):
    async with VirtualPowerCable(link=tmp_path / "cable") as cable:
        found = await ask(AskedPort(os.path.realpath(cable.device), cable.device))
        assert PowerCableSettings.model_validate(found.keys).id == cable.unique_id.hex()
        assert found.keys["device"] == str(tmp_path / "cable")
        assert found.outlets == ("1", "2", "3", "4")
        assert cable.received.count(b"@") == 1, "one question, and nothing is switched"


async def test_noise_around_the_answer(tmp_path, patient):
    async with VirtualPowerCable(link=tmp_path / "cable", noise=b"\xff~~ U-Boot 2023.01 @@@\r\n") as cable:
        assert (await ask(AskedPort("x", cable.device))).keys["id"] == cable.unique_id.hex()


@pytest.fixture
def board():
    """A port with a board that says what it was told."""
    ours, theirs = pty.openpty()
    yield ours, os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("says", [b"", b"login: \r\n", b"@aaa ok boardhand-cable*0000\n", b"\x00" * 600])
async def test_a_board_is_no_cable(board, says, monkeypatch):
    monkeypatch.setattr("agent.discovery.power_cables.REPLY_S", 0.2)
    ours, device = board
    asking = asyncio.create_task(ask(AskedPort(device, device)))
    await asyncio.sleep(0)
    os.write(ours, says)
    assert await asking is None


async def test_a_port_that_is_gone_or_taken(board, tmp_path):
    gone = await ask(AskedPort("x", str(tmp_path / "ttyUSB0")))
    assert isinstance(gone, Problem)
    import fcntl
    import termios

    held = os.open(board[1], os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.ioctl(held, termios.TIOCEXCL)
        taken = await ask(AskedPort("x", board[1]))
    finally:
        fcntl.ioctl(held, termios.TIOCNXCL)
        os.close(held)
    assert "in use by another program" in taken.what
