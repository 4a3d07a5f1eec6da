"""Chosen boots put into effect: real downloads from a real HTTP server, and what the netboot server is told."""

import asyncio
import hashlib
import sqlite3
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.boot_files_desk import BootFilesDesk
from agent.requests import RequestError
from agent.settings import load
from wire.phases import ErrorKind


class Netboot:
    """Keeps what it was told to serve."""

    def __init__(self):
        self.served = {}

    def set_boards(self, boards):
        self.served = {board.board: board.profile for board in boards}


@pytest.fixture
def origin(tmp_path):
    folder = tmp_path / "origin"
    folder.mkdir()
    (folder / "vmlinuz.gz").write_bytes(b"a kernel" * 1000)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    port = process.stdout.readline().split(" port ")[1].split()[0]
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.communicate()


@pytest.fixture
def settings(tmp_path, origin):
    for name in ("kernel", "other"):
        (tmp_path / name).write_bytes(name.encode())
    file = tmp_path / "agent.toml"
    file.write_text(f"""
[agent]
name = "lab"
state_dir = "{tmp_path}/state"
[controllers.c]
driver = "command"
on = ["true"]
off = ["true"]
[netboot]
interface = "eth9"
address = "10.77.0.1/24"
mqtt_for_boards = "10.77.0.1:1883"
[netboot.fetch]
allow = ["{origin}", "http://127.0.0.1:9"]
[profiles.standing]
kernel = "{tmp_path}/kernel"
cmdline = "console=ttyS0"
[profiles.other]
kernel = "{tmp_path}/other"
[boards.pi]
feed = ["c:1"]
macs = ["52:54:00:00:00:01"]
address = "10.77.0.11"
profile = "standing"
""")
    return load(Path(file))


@pytest.fixture
async def desk(settings):
    desks, saved = [], []

    async def make(stored=None):
        async def save(state):
            saved.append(state)

        made = BootFilesDesk(make.settings, Netboot(), stored, save)
        desks.append(made)
        await made.start()
        return made

    make.saved, make.settings = saved, settings
    yield make
    for made in desks:
        await made.stop()


def kernel(origin, **changes):
    digest = hashlib.sha256(b"a kernel" * 1000).hexdigest()
    return {"board": "pi", "kernel": {"url": f"{origin}/vmlinuz.gz", "sha256": digest, **changes}}


async def test_a_chosen_kernel_is_fetched_served_once_and_gone_after_its_boot(desk, origin, tmp_path):
    made = await desk()
    assert made._netboot.served["pi"].name == "standing"
    answer = await made.choose(kernel(origin))
    assert answer == {"board": "pi", "profile": "pi-chosen", "chosen": True}
    chosen = made._netboot.served["pi"]
    assert chosen.kernel.read_bytes() == b"a kernel" * 1000
    assert (chosen.kernel.name, chosen.compressed, chosen.cmdline) == ("vmlinuz.gz", True, "console=ttyS0")
    await made.power_lost("pi")
    assert made._netboot.served["pi"] is chosen, "it never came up: the cycle boots it again"
    await made.registered("pi")
    again = await desk(desk.saved[-1])
    assert again._netboot.served["pi"].kernel.read_bytes() == b"a kernel" * 1000, "kept over a restart of the agent"
    await again.power_lost("pi")
    assert again._netboot.served["pi"].name == "standing"
    assert not (tmp_path / "state" / "boot" / "pi").exists()
    assert desk.saved[-1] == {}


async def test_overlays_and_the_family_of_a_chosen_boot(desk, origin):
    made = await desk()
    overlay = {"url": f"{origin}/vmlinuz.gz", "sha256": kernel(origin)["kernel"]["sha256"]}
    overlays = [{**overlay, "name": name} for name in ("spi.dtbo", "can.dtbo")]
    await made.choose({**kernel(origin), "overlays": overlays, "family": "uboot"})
    chosen = made._netboot.served["pi"]
    assert [path.name for path in chosen.overlays] == ["spi.dtbo", "can.dtbo"]
    assert chosen.family == "uboot"
    assert made.chosen("pi").overlays[1].name == "can.dtbo"
    with pytest.raises(RequestError, match=r"must be NAME\.dtbo"):
        await made.choose({**kernel(origin), "overlays": [overlay]})


async def test_a_profile_by_name_and_back(desk):
    made = await desk()
    await made.choose({"board": "pi", "profile": "other"})
    assert made._netboot.served["pi"].kernel.name == "other"
    assert await made.choose({"board": "pi"}) == {"board": "pi", "profile": "standing", "chosen": False}
    assert made._netboot.served["pi"].name == "standing"


async def test_what_cannot_be_had_leaves_all_as_it_was(desk, origin):
    made = await desk()
    cases = [
        (kernel(origin, sha256="00" * 32), ErrorKind.BAD_REQUEST, "vmlinuz.gz"),
        (kernel(origin, url=f"{origin}/nothing"), ErrorKind.REFUSED, "nothing"),
        (kernel(origin, url="http://127.0.0.1:9/k"), ErrorKind.UNREACHABLE, "127.0.0.1:9"),
        (kernel(origin, url="file:///etc/passwd"), ErrorKind.BAD_REQUEST, "file"),
        (kernel(origin, url="http://127.0.0.1:10/k"), ErrorKind.REFUSED, "[netboot.fetch] allow"),
        (kernel(origin, sha256=None), ErrorKind.BAD_REQUEST, "SHA-256"),
        ({"board": "pi", "profile": "nobody"}, ErrorKind.NOT_FOUND, "known are other, standing"),
        ({"board": "who", "profile": "other"}, ErrorKind.UNKNOWN_BOARD, "who"),
        ({"board": "pi", "kernal": 1}, ErrorKind.BAD_REQUEST, "kernal"),
    ]
    for data, kind, text in cases:
        with pytest.raises(RequestError) as caught:
            await made.choose(data)
        assert caught.value.info.kind is kind, data
        assert text in caught.value.info.message
    assert made._netboot.served["pi"].name == "standing"
    assert desk.saved == []


async def test_a_slow_download_for_one_board_keeps_no_other_waiting(desk, settings, tmp_path):
    silent = await asyncio.start_server(lambda *_: asyncio.sleep(60), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    fetch = settings.netboot.fetch.model_copy(update={"allow": [f"http://127.0.0.1:{port}"]})
    boards = {**settings.boards, "pi2": settings.boards["pi"].model_copy(update={"address": IPv4Address("10.77.0.12")})}
    desk.settings = settings.model_copy(
        update={"netboot": settings.netboot.model_copy(update={"fetch": fetch}), "boards": boards}
    )
    made = await desk()
    asking = asyncio.create_task(made.choose(kernel(f"http://127.0.0.1:{port}")))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(60):
        await made.choose({"board": "pi2", "profile": "other"})
        await made.registered("pi2")
        await made.power_lost("pi2")
    assert not asking.done()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    silent.close()


async def test_without_a_checksum_the_chosen_file_stays_the_same_over_a_restart(desk, settings, origin, tmp_path):
    fetch = settings.netboot.fetch.model_copy(update={"checksum": "optional"})
    desk.settings = settings.model_copy(update={"netboot": settings.netboot.model_copy(update={"fetch": fetch})})
    made = await desk()
    await made.choose(kernel(origin, sha256=None))
    (tmp_path / "origin" / "vmlinuz.gz").write_bytes(b"another kernel")
    again = await desk(desk.saved[-1])
    assert again._netboot.served["pi"].kernel.read_bytes() == b"a kernel" * 1000


async def test_a_choice_that_cannot_be_stored_is_none_and_what_a_board_comes_to_goes_on(desk):
    made = await desk()

    async def full(_state):
        raise sqlite3.OperationalError("database or disk is full")

    room, made._save = made._save, full
    with pytest.raises(sqlite3.OperationalError):
        await made.choose({"board": "pi", "profile": "other"})
    assert (made.chosen("pi"), made._netboot.served["pi"].name) == (None, "standing")
    made._save = room
    await made.choose({"board": "pi", "profile": "other"})
    made._save = full
    await made.registered("pi")
    await made.power_lost("pi")
    assert (made.chosen("pi"), made._netboot.served["pi"].name) == (None, "standing")
