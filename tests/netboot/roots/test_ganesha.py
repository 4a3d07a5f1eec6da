"""What ganesha is told, as text; and what is made of its words where no real one says them."""

import asyncio
import re
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.roots.engine import MAX_EXPORTS, Export
from netboot.roots.errors import EngineError
from netboot.roots.ganesha import Ganesha
from netboot.roots.ganesha_bus import GaneshaBus
from netboot.roots.ganesha_config import GaneshaSettings, numbered, render
from netboot.roots.nfs_ping import Watch, is_answer, null_call, ping

ONE = IPv4Address("10.77.0.11")
VIEW = Export("boards/b1", Path("/srv/views/b1/merged"), (ONE,), writable=True)
ROOT = Export("roots/debian", Path("/srv/roots/debian/tree"), (ONE, IPv6Address("fd77::12")), writable=False)


def blocks(text):
    return re.findall(r"^EXPORT \{ (.*) \}$", text, re.MULTILINE)


def test_an_export_is_nobody_s_but_those_who_are_named():
    text = render([VIEW, ROOT], {"boards/b1": 1, "roots/debian": 7}, GaneshaSettings(Path("/run/nfs")), None)
    for block, access, clients in zip(blocks(text), ("RW", "RO"), ("10.77.0.11", "10.77.0.11, fd77::12"), strict=True):
        outside, _, inside = block.partition("CLIENT {")
        assert "Access_Type = NONE;" in outside
        assert f"Clients = {clients}; Access_Type = {access};" in inside
    assert 'Pseudo = "/boards/b1"' in text
    assert "Export_Id = 7" in text
    assert "Protocols = 4; NFS_Port = 2049;" in text
    assert "Protocols = 3" not in text
    old = render([VIEW], {"boards/b1": 1}, GaneshaSettings(Path("/run/nfs"), v3=True), Path("/usr/lib/ganesha"))
    assert "Protocols = 3,4; NFS_Port = 2049; MNT_Port = 2050; Mount_Path_Pseudo = true;" in old
    assert 'Plugins_Dir = "/usr/lib/ganesha"' in old


@given(st.lists(st.sampled_from([f"boards/b{n}" for n in range(9)]), unique=True), st.data())
def test_numbers_stay_and_are_never_shared(names, data):
    numbers = {}
    for _ in range(3):
        chosen = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
        before = dict(numbers)
        numbered([Export(name, Path("/x"), (ONE,), writable=True) for name in chosen], numbers)
        assert before.items() <= numbers.items()
        assert len(set(numbers.values())) == len(numbers)
        assert all(1 <= number <= MAX_EXPORTS for number in numbers.values())


def test_a_name_that_stands_twice_is_refused():
    with pytest.raises(EngineError, match="boards/b1 stands twice"):
        numbered([VIEW, VIEW], {})


@pytest.mark.parametrize(
    ("name", "path", "clients"),
    [
        ("b1", "/srv/a", ()),
        ('b"1', "/srv/a", (ONE,)),
        ("b1", '/srv/a"; Access_Type = RW; #', (ONE,)),
        ("b1", "/srv/a\n", (ONE,)),
        ("b1", "srv", (ONE,)),
        ("/b1", "/srv", (ONE,)),
        ("", "/srv", (ONE,)),
    ],
)
def test_what_would_break_a_configuration_is_no_export(name, path, clients):
    with pytest.raises(EngineError):
        Export(name, Path(path), clients, writable=True)


async def test_a_ganesha_that_is_not_there_is_told_with_what_to_install(tmp_path):
    engine = Ganesha(GaneshaSettings(tmp_path / "nfs", program="no-ganesha-here"))
    with pytest.raises(EngineError, match="apt-get install"):
        await engine.start()
    assert not all(finding.ok for finding in await engine.check())


async def test_a_server_that_ends_at_once_is_told_with_its_words(tmp_path):
    program = tmp_path / "ganesha"
    program.write_text("#!/bin/sh\necho 'x : y : nfs_Init :MAIN :FATAL :no such luck' >&2; exit 2\n")
    program.chmod(0o755)
    with pytest.raises(EngineError, match="ended at once: no such luck"):
        await Ganesha(GaneshaSettings(tmp_path / "nfs", program=str(program))).start()


class NfsServer:
    """Answers the first octets of a call as it is told."""

    def __init__(self, reply):
        self.reply = reply
        self.calls = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[:2]

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()

    async def serve(self, reader, writer):
        call = await reader.readexactly(44)
        self.calls += 1
        writer.write(self.reply(call))
        writer.close()


def good(call):
    body = struct.pack("!6I", struct.unpack_from("!I", call, 4)[0], 1, 0, 0, 0, 0)
    return struct.pack("!I", 0x80000000 | len(body)) + body


@pytest.mark.parametrize(
    "bad",
    [
        lambda _: b"",
        lambda _: b"\x80\0\0\x04abcd",
        lambda _: b"\xff\xff\xff\xff",
        lambda _: good(b"\0" * 44),
        lambda call: good(call)[:-1] + b"\1",
        lambda call: good(call)[:20] + b"\0\0\1\0" + good(call)[24:],
    ],
)
async def test_what_is_no_answer_of_an_nfs_server_is_none(bad):
    async with NfsServer(bad) as where:
        with pytest.raises(EngineError, match=r"NFS server at 127\.0\.0\.1"):
            await ping(*where, timeout_s=5)


async def test_a_server_that_answers_is_well():
    async with NfsServer(good) as where:
        await ping(*where)
    with pytest.raises(EngineError, match="does not answer"):
        await ping(*where)


@given(st.binary(max_size=64), st.integers(0, 2**32 - 1))
def test_no_reply_breaks_the_reader(reply, number):
    assert is_answer(reply, number) in {True, False}
    assert len(null_call(number)) == 44


async def test_a_watched_server_is_in_trouble_after_three_pings_in_vain_and_out_of_it_after_one():
    told = asyncio.Queue()
    server = NfsServer(good)
    async with server as where:
        pass
    watch = Watch(where, told.put_nowait, every_s=0.01)
    watch.start()
    try:
        assert "does not answer" in await asyncio.wait_for(told.get(), 60)
        server.server = await asyncio.start_server(server.serve, *where)
        assert await asyncio.wait_for(told.get(), 60) is None
    finally:
        await watch.stop()
        server.server.close()
    assert told.empty()


class Bus:
    """A `Runner` that is a ganesha on D-Bus."""

    def __init__(self):
        self.has = set()
        self.said = []

    async def __call__(self, command):
        method, *arguments = command[6:]
        method = method.rpartition(".")[2]
        number = int(re.search(r"\d+\)?$", arguments[-1])[0].rstrip(")")) if arguments else 0
        self.said.append((method, number))
        if method == "AddExport":
            if number in self.has:
                return 1, "Export id already there"
            self.has.add(number)
        elif number not in self.has:
            return 1, "Export id not found"
        elif method == "RemoveExport":
            self.has.discard(number)
        return 0, ""


async def test_a_service_is_told_what_changes_and_nothing_else(tmp_path):
    bus = Bus()
    engine = GaneshaBus(tmp_path / "nfs", bus)
    await engine.start([VIEW])
    await engine.apply([VIEW, ROOT])
    await engine.apply([VIEW, ROOT])
    await engine.apply([ROOT])
    assert bus.said == [("AddExport", 1), ("AddExport", 2), ("RemoveExport", 1)]
    assert blocks((tmp_path / "nfs/exports.conf").read_text())[0].startswith("Export_Id = 2")
    bus.said.clear()
    later = GaneshaBus(tmp_path / "nfs", bus)  # an agent that was killed
    await later.start([ROOT, VIEW])
    assert bus.has in ({1, 2}, {2, 3})
    assert bus.said[0] == ("UpdateExport", 2)
    await later.stop()
    (tmp_path / "nfs/exported.json").write_text("[")
    with pytest.raises(EngineError, match="delete it"):
        await GaneshaBus(tmp_path / "nfs", bus).start()
