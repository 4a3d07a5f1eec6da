"""nfs-ganesha itself, with libnfs as the foreign client: who is named gets in, nobody else; what goes is refused."""

import asyncio
import os
import signal
from ipaddress import IPv4Address

import pytest

from netboot.roots.engine import Export
from netboot.roots.errors import EngineError, RefusedExportError
from netboot.roots.ganesha import Ganesha
from netboot.roots.ganesha_bus import GaneshaBus
from netboot.roots.ganesha_config import GaneshaSettings, plugins
from netboot.roots.program import run_program
from netboot.roots.views import Views
from tests.netboot.roots.nfs_lab import BOARDS, PORT, NfsLab

pytestmark = [pytest.mark.usefixtures("private_mounts")]


@pytest.fixture
def lab(tmp_path):
    made = NfsLab(tmp_path)
    yield made
    made.close()


@pytest.fixture
def views(rooted):
    made = Views(rooted)
    yield made
    for view in made.all():
        made.release(view.board)


@pytest.fixture
def told():
    return asyncio.Queue()


@pytest.fixture
async def child(lab, tmp_path, told):
    settings = GaneshaSettings(tmp_path / "nfs", port=PORT, program=lab.wrapper("ganesha.nfsd"))
    engine = Ganesha(settings, told.put_nowait)
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def service(lab, tmp_path, monkeypatch):
    address = lab.bus()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    config = tmp_path / "ganesha.conf"
    folder = tmp_path / "nfs"
    folder.mkdir()
    (folder / "exports.conf").touch()
    config.write_text(
        f"NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = {PORT}; Enable_NLM = false; Enable_RQUOTA = false; "
        f'Plugins_Dir = "{plugins()}"; }}\n'
        f'NFSv4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = "{tmp_path}/rec"; }}\n'
        f'%include "{folder}/exports.conf"\n'
    )
    (tmp_path / "rec").mkdir()
    lab.start("ganesha.nfsd", "-F", "-f", config, "-L", tmp_path / "g.log", "-p", tmp_path / "g.pid")
    engine = GaneshaBus(folder)
    async with asyncio.timeout(60):
        while not (await engine.check())[-1].ok:  # noqa: ASYNC110 -- a service says nothing when it is up
            await asyncio.sleep(0.05)
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture(params=["child", "service"])
def engine(request):
    return request.getfixturevalue(request.param)


def export(view, board=None):
    return Export(f"boards/{view.board}", view.path, (IPv4Address(BOARDS[board or view.board]),), writable=True)


async def test_each_board_reaches_its_view_and_no_other(engine, lab, views):
    one, two = (views.fresh(board, "debian", []) for board in ("b1", "b2"))
    await engine.apply([export(one), export(two)])
    read, write = (lambda *a: asyncio.to_thread(lab.read, *a)), (lambda *a: asyncio.to_thread(lab.write, *a))
    assert await read("b1", "boards/b1/etc/os-release") == "ID=debian\n"
    assert await write("b1", "boards/b1/etc/mine", "b1's\n")
    assert (one.path / "etc/mine").read_text() == "b1's\n"
    assert await read("b2", "boards/b2/etc/mine") is None
    assert await read("b2", "boards/b1/etc/mine") is None
    assert await read("stranger", "boards/b1/etc/os-release") is None
    assert not await write("stranger", "boards/b1/etc/mine", "stranger's\n")
    await engine.apply([export(one)])
    assert await read("b2", "boards/b2/etc/os-release") is None
    assert await read("b1", "boards/b1/etc/mine") == "b1's\n"
    await engine.apply([])
    later = views.fresh("b1", "debian", [])
    await engine.apply([export(later)])
    assert await read("b1", "boards/b1/etc/mine") is None
    assert await read("b1", "boards/b1/etc/os-release") == "ID=debian\n"


async def test_a_root_is_read_only_and_for_those_who_are_named(engine, lab, rooted):
    root = Export("roots/debian", rooted.tree("debian"), (IPv4Address(BOARDS["b1"]),), writable=False)
    await engine.apply([root])
    assert await asyncio.to_thread(lab.read, "b1", "roots/debian/etc/os-release") == "ID=debian\n"
    assert not await asyncio.to_thread(lab.write, "b1", "roots/debian/etc/mine", "no\n")
    assert await asyncio.to_thread(lab.read, "b2", "roots/debian/etc/os-release") is None
    both = Export(root.name, root.path, (*root.clients, IPv4Address(BOARDS["b2"])), writable=False)
    await engine.apply([both])
    assert await asyncio.to_thread(lab.read, "b2", "roots/debian/etc/os-release") == "ID=debian\n"
    assert await asyncio.to_thread(lab.read, "stranger", "roots/debian/etc/os-release") is None


async def test_an_export_that_is_refused_is_named_and_the_others_stay(engine, lab, views, tmp_path):
    view = views.fresh("b1", "debian", [])
    bad = Export("boards/b2", tmp_path / "nowhere", (IPv4Address(BOARDS["b2"]),), writable=True)
    with pytest.raises(RefusedExportError) as caught:
        await engine.apply([export(view), bad])
    assert caught.value.names == ["boards/b2"]
    assert await asyncio.to_thread(lab.read, "b1", "boards/b1/etc/os-release") == "ID=debian\n"
    await engine.apply([export(view)])


async def test_a_server_that_is_killed_comes_back_with_its_exports(child, lab, views, told):
    view = views.fresh("b1", "debian", [])
    await child.apply([export(view)])
    assert await asyncio.to_thread(lab.write, "b1", "boards/b1/etc/mine", "before\n")
    os.kill(child.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        assert "ended with -9" in await told.get()
        assert await told.get() is None
    assert await asyncio.to_thread(lab.read, "b1", "boards/b1/etc/mine") == "before\n"
    assert child.restarts == 1
    assert all(finding.ok for finding in await child.check()), await child.check()


async def test_a_second_server_on_the_port_is_told(child, lab, tmp_path):
    settings = GaneshaSettings(tmp_path / "other", port=PORT, program=lab.wrapper("ganesha.nfsd"))
    with pytest.raises(EngineError, match=f"port {PORT} another"):
        await Ganesha(settings).start()


async def test_what_an_agent_before_us_exported_goes_on_or_goes(service, lab, views, tmp_path):
    one, two = (views.fresh(board, "debian", []) for board in ("b1", "b2"))
    await service.apply([export(one), export(two)])
    again = GaneshaBus(tmp_path / "nfs", run_program)
    await again.start([export(one)])
    assert await asyncio.to_thread(lab.read, "b1", "boards/b1/etc/os-release") == "ID=debian\n"
    assert await asyncio.to_thread(lab.read, "b2", "boards/b2/etc/os-release") is None
    await again.stop()
