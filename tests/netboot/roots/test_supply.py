"""Which view a boot gets, what is exported to whom and when, and what is refused meanwhile."""

import asyncio
import threading
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.roots import supply as supply_module
from netboot.roots.boot_words import NfsRoot, RootForm, Upper, initramfs_files, kernel_words
from netboot.roots.engine import Engine, Export
from netboot.roots.errors import EngineError, NoSuchRootError, RefusedExportError, RootError, RootInUseError
from netboot.roots.export_book import ExportBook, merged
from netboot.roots.root_plan import Reset, RootPlan, needs_reset
from netboot.roots.supply import RootSupply, SupplySettings
from netboot.roots.views import View, Views

SERVER = IPv4Address("10.77.0.1")
ONE, TWO = IPv4Address("10.77.0.11"), IPv4Address("10.77.0.12")
PLAN = RootPlan("debian", ONE)


class FakeEngine(Engine):
    """Remembers what it was told; refuses names in `refuses`, all while `dead`."""

    def __init__(self):
        self.told = []
        self.refuses = set()
        self.dead = False
        self.gate = None

    @property
    def now(self):
        return {export.name: export for export in self.told[-1]}

    async def start(self, exports=()):
        await self.apply(exports)

    async def apply(self, exports):
        if self.gate is not None:
            await self.gate.wait()
        if self.dead:
            raise EngineError("it does not answer")
        self.told.append([export for export in exports if export.name not in self.refuses])
        refused = [export.name for export in exports if export.name in self.refuses]
        if refused:
            raise RefusedExportError("no", refused)

    async def stop(self):
        self.told.append("stopped")

    async def check(self):
        return []

    def path_for_boards(self, export):
        return f"/{export.name}"


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
async def make_supply(rooted, engine, tmp_path):
    made = []
    now = [100.0]

    async def make(running=(), known=None):
        views = Views(rooted)
        settings = SupplySettings(tmp_path / "identities", SERVER)
        supply = RootSupply(rooted, views, engine, settings, clock=lambda: now[0])
        made.append((supply, views))
        await supply.start(dict(running), known)
        return supply

    make.later = lambda by_s: now.__setitem__(0, now[0] + by_s)
    yield make
    for supply, views in made:
        await supply.stop()
        for view in views.all():
            views.release(view.board)


def merged_of(store, board):
    return store.folder / "views" / board / "merged"


@pytest.mark.mounts
@pytest.mark.usefixtures("private_mounts")
class TestBoots:
    async def test_a_boot_gets_a_view_that_is_exported_to_that_board_alone(self, make_supply, engine, rooted):
        supply = await make_supply()
        words = await supply.boot("b1", PLAN, ["boardhand.board=b1"])
        await supply.boot("b2", replace(PLAN, address=TWO), [])
        assert "boardhand.root=10.77.0.1:/boards/b1" in words
        assert "boardhand.root_upper=server" in words
        assert {name: (e.clients, e.writable) for name, e in engine.now.items()} == {
            "boards/b1": ((ONE,), True), "boards/b2": ((TWO,), True),
        }  # fmt: skip
        merged = merged_of(rooted, "b1")
        assert (merged / "etc/boardhand/boot").read_text() == "boardhand.board=b1\n"
        assert (merged / "etc/hostname").read_text() == "b1\n"
        assert (merged / "etc/ssh/ssh_host_ed25519_key").exists()
        await supply.gone("b1")
        assert list(engine.now) == ["boards/b2"]
        assert merged.is_dir()

    async def test_a_second_fetch_of_one_boot_changes_nothing(self, make_supply, rooted):
        supply = await make_supply()
        first = await supply.boot("b1", PLAN, ["boardhand.secret=1"])
        (merged_of(rooted, "b1") / "etc/made").touch()
        make_supply.later(9)
        assert await supply.boot("b1", PLAN, ["boardhand.secret=1"]) == first
        assert (merged_of(rooted, "b1") / "etc/made").exists()
        make_supply.later(1)
        await supply.boot("b1", PLAN, ["boardhand.secret=1"])
        assert not (merged_of(rooted, "b1") / "etc/made").exists()

    async def test_nobody_has_a_view_while_it_is_changed(self, make_supply, engine):
        supply = await make_supply()
        await supply.boot("b1", PLAN, ["boardhand.secret=1"])
        await supply.boot("b1", PLAN, ["boardhand.secret=2"])
        assert [[export.name for export in told] for told in engine.told] == [[], ["boards/b1"], [], ["boards/b1"]]

    async def test_a_view_is_kept_for_a_job_and_goes_with_it(self, make_supply, rooted):
        supply = await make_supply()
        plan = replace(PLAN, reset=Reset.JOB)
        made = merged_of(rooted, "b1") / "etc/made"
        seen = []
        for number, job in enumerate(["", "ci:7", "ci:7", "ci:8", ""]):
            await supply.boot("b1", plan, [f"boardhand.secret={number}"], job=job)
            seen.append(made.exists())
            made.touch()
        assert seen == [False, True, True, False, False]

    async def test_memory_shares_one_export_of_the_root(self, make_supply, engine):
        supply = await make_supply()
        plan = replace(PLAN, upper=Upper.MEMORY)
        words = await supply.boot("b1", plan, [])
        await supply.boot("b2", replace(plan, address=TWO), [])
        assert "boardhand.root_identity=10.77.0.1:/identity/b1" in words
        assert engine.now["roots/debian"].clients == (ONE, TWO)
        assert not engine.now["roots/debian"].writable
        assert engine.now["identity/b2"].clients == (TWO,)
        await supply.gone("b1")
        assert engine.now["roots/debian"].clients == (TWO,)

    async def test_after_a_restart_of_ours_boards_that_run_have_their_view_from_the_first_moment(
        self, make_supply, engine, rooted
    ):
        first = await make_supply()
        for board, address in (("b1", ONE), ("b2", TWO)):
            await first.boot(board, replace(PLAN, address=address), [])
            (merged_of(rooted, board) / "etc/made").touch()
        Views(rooted).close("b1")  # the host was restarted, too
        engine.told.clear()
        await make_supply({"b1": PLAN, "b3": replace(PLAN, address=IPv4Address("10.77.0.13"))})
        assert [[export.name for export in told] for told in engine.told] == [["boards/b1"]]
        assert (merged_of(rooted, "b1") / "etc/made").exists()

    async def test_views_of_retired_boards_go_unless_they_were_to_be_kept(self, make_supply, rooted):
        first = await make_supply()
        for board, reset in (("b1", Reset.BOOT), ("b2", Reset.NEVER), ("b3", Reset.JOB), ("b4", Reset.BOOT)):
            await first.boot(board, replace(PLAN, reset=reset), [], job="ci:1")
        second = await make_supply(known=["b4"])
        assert [view.board for view, _ in await second.views()] == ["b2", "b4"]
        assert rooted.users("debian") == ["b2", "b4"]
        await second.reset("b2", None)
        assert rooted.users("debian") == ["b4"]

    async def test_a_board_that_is_refused_does_not_stop_another(self, make_supply, engine):
        supply = await make_supply()
        engine.refuses.add("boards/b1")
        results = await asyncio.gather(
            supply.boot("b1", PLAN, []), supply.boot("b2", replace(PLAN, address=TWO), []), return_exceptions=True
        )
        assert isinstance(results[0], RefusedExportError)
        assert "boardhand.root=10.77.0.1:/boards/b2" in results[1]
        engine.refuses.clear()
        assert await supply.boot("b1", PLAN, [])
        engine.dead = True
        with pytest.raises(EngineError):
            await supply.boot("b1", PLAN, ["boardhand.secret=2"])
        engine.dead = False
        assert await supply.boot("b1", PLAN, ["boardhand.secret=2"])

    async def test_a_boot_without_its_root_is_refused(self, make_supply):
        supply = await make_supply()
        with pytest.raises(NoSuchRootError, match="fedora"):
            await supply.boot("b1", replace(PLAN, root="fedora"), [])

    async def test_reset_on_request_waits_for_the_board_to_be_off_unless_forced(self, make_supply, rooted, engine):
        supply = await make_supply()
        await supply.boot("b1", replace(PLAN, reset=Reset.NEVER), [])
        (merged_of(rooted, "b1") / "etc/made").touch()
        with pytest.raises(RootInUseError, match="b1"):
            await supply.reset("b1", PLAN)
        assert (await supply.reset("b1", PLAN, force=True)).generation == 2
        assert engine.now == {}
        assert not (merged_of(rooted, "b1") / "etc/made").exists()
        assert await supply.reset("b1", None) is None
        assert await supply.views() == []

    async def test_a_view_becomes_a_root_while_nothing_else_may_touch_it(self, make_supply, rooted, monkeypatch):
        supply = await make_supply()
        await supply.boot("b1", PLAN, [])
        (merged_of(rooted, "b1") / "etc/made").write_text("made\n")
        with pytest.raises(RootInUseError):
            await supply.begin_save("b1", "mine", ended=print)
        await supply.gone("b1")
        go_on, ended = threading.Event(), asyncio.get_running_loop().create_future()
        real = supply_module.RootImport.run

        def slow(*args, **more):
            assert go_on.wait(60)
            return real(*args, **more)

        monkeypatch.setattr(supply_module.RootImport, "run", slow)
        work = await supply.begin_save("b1", "mine", ended=lambda *told: ended.set_result(told))
        for attempt in (
            supply.boot("b1", PLAN, []),
            supply.reset("b1", PLAN),
            supply.begin_save("b1", "x", ended=print),
        ):
            with pytest.raises(RootInUseError, match="saved as mine"):
                await attempt
        go_on.set()
        told, info = await asyncio.wait_for(ended, 60)
        assert (told is work, work.ended, work.error, info.name) == (True, True, None, "mine")
        assert (rooted.tree("mine") / "etc/made").read_text() == "made\n"
        assert (rooted.tree("mine") / "etc/hostname").read_text() == "image\n"
        assert not (rooted.tree("mine") / "etc/machine-id").exists()
        with pytest.raises(RootError, match="never changed"):
            await supply.begin_save("b1", "mine", ended=print)
        assert await supply.boot("b1", replace(PLAN, root="mine"), [])
        assert (merged_of(rooted, "b1") / "etc/made").exists()

    async def test_a_board_s_own_file_system_is_not_touched_while_it_may_have_it_mounted(self, make_supply):
        supply = await make_supply()
        await supply.boot("b1", replace(PLAN, upper=Upper.NFS), [])
        with pytest.raises(RootInUseError, match="switch it off first"):
            await supply.begin_save("b1", "mine", live=True, ended=print)
        await supply.boot("b2", replace(PLAN, upper=Upper.MEMORY, address=TWO), [])
        with pytest.raises(RootError, match="own memory"):
            await supply.begin_save("b2", "mine", live=True, ended=print)

    async def test_what_runs_can_be_saved_as_it_is(self, make_supply, rooted):
        supply = await make_supply()
        await supply.boot("b1", PLAN, [])
        (merged_of(rooted, "b1") / "etc/made").write_text("made\n")
        ended = asyncio.get_running_loop().create_future()
        await supply.begin_save("b1", "mine", live=True, ended=lambda *told: ended.set_result(told))
        work, _ = await asyncio.wait_for(ended, 60)
        assert work.error is None
        assert (rooted.tree("mine") / "etc/made").read_text() == "made\n"
        assert (merged_of(rooted, "b1") / "etc/made").exists()

    async def test_a_save_that_is_cut_short_by_our_stop_leaves_nothing(self, make_supply, rooted, monkeypatch):
        supply = await make_supply()
        await supply.boot("b1", PLAN, [])
        await supply.gone("b1")
        began = threading.Event()
        real = supply_module.RootImport.__init__

        def slow(self, store, *, progress, **more):
            def tell(*told):
                began.set()
                progress(*told)

            real(self, store, progress=tell, **more)

        monkeypatch.setattr(supply_module.RootImport, "__init__", slow)
        ended = asyncio.get_running_loop().create_future()
        work = await supply.begin_save("b1", "mine", ended=lambda *told: ended.set_result(told))
        work.stopping = True  # as `stop` does
        await asyncio.wait_for(ended, 60)
        assert await asyncio.to_thread(began.wait, 60)
        assert work.error == "the agent was stopped"
        assert "mine" not in rooted.names()
        assert list((rooted.folder / "incoming").iterdir()) == []


VIEWS = st.builds(
    View, st.just("b1"), st.sampled_from(["debian", "fedora"]), st.just(1), st.sampled_from(Upper),
    st.sampled_from(["", "a:1", "a:2"]), st.none(), st.none(), st.none(),
)  # fmt: skip


@given(st.none() | VIEWS, st.sampled_from(Reset), st.sampled_from(["", "a:1", "a:2"]))
def test_a_view_is_kept_only_if_it_is_of_this_root_and_the_profile_says_so(view, reset, job):
    kept = not needs_reset(view, RootPlan("debian", ONE, reset=reset), job)
    if view is None or view.root != "debian" or view.upper is not Upper.SERVER or reset is Reset.BOOT:
        assert not kept
    elif reset is Reset.NEVER:
        assert kept
    else:
        assert kept == (view.mark in {"", job})


async def test_many_changes_at_once_are_told_in_a_few_words(engine, tmp_path):
    book = ExportBook(engine)
    engine.gate = asyncio.Event()
    puts = [
        asyncio.create_task(book.put(f"b{n}", [Export(f"boards/b{n}", tmp_path, (IPv4Address(n),), writable=True)]))
        for n in range(1, 65)
    ]
    await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(*puts)
    assert len(engine.told) <= 2
    assert len(engine.now) == 64


@given(st.dictionaries(st.sampled_from(["b1", "b2", "b3"]), st.sets(st.sampled_from(["r1", "r2"]))))
def test_an_export_is_for_all_who_want_it_and_for_nobody_else(wanted):
    from pathlib import Path

    def addresses(name):
        return sorted(IPv4Address(f"10.0.0.{board[1]}") for board, names in wanted.items() if name in names)

    told = merged(
        {
            board: tuple(
                Export(name, Path("/x"), (IPv4Address(f"10.0.0.{board[1]}"),), writable=False) for name in names
            )
            for board, names in wanted.items()
        }
    )
    assert {export.name: sorted(export.clients) for export in told} == {
        name: addresses(name) for name in ("r1", "r2") if addresses(name)
    }


@pytest.mark.parametrize(
    ("root", "words"),
    [
        (
            NfsRoot(SERVER, "/boards/b1", form=RootForm.KERNEL),
            "root=/dev/nfs nfsroot=10.77.0.1:/boards/b1,vers=4.2,proto=tcp,hard ip=dhcp rw fstab=no",
        ),
        (
            NfsRoot(SERVER, "/boards/b1", form=RootForm.KERNEL, v3=True, port=2050, init="/bin/sh"),
            (
                "root=/dev/nfs nfsroot=10.77.0.1:/boards/b1,vers=3,proto=tcp,nolock,hard,port=2050"
                " ip=dhcp rw fstab=no init=/bin/sh"
            ),
        ),
        (
            NfsRoot(SERVER, "/roots/debian", upper=Upper.NFS, identity="/identity/b1", disk="/disks/b1"),
            (
                "rdinit=/lib/boardhand/root-init.sh boardhand.root=10.77.0.1:/roots/debian"
                " boardhand.root_options=vers=4.2,proto=tcp,hard boardhand.root_upper=nfs"
                " boardhand.root_identity=10.77.0.1:/identity/b1 boardhand.root_disk=10.77.0.1:/disks/b1 fstab=no"
            ),
        ),
    ],
)
def test_the_kernel_is_told(root, words):
    assert " ".join(kernel_words(root)) == words


@pytest.mark.parametrize(
    "wrong",
    [
        {"upper": Upper.MEMORY, "form": RootForm.KERNEL},
        {"path": "/a b"},
        {"path": "relative"},
        {"path": "/a,soft"},
        {"init": "/bin/$sh"},
        {"upper": Upper.NFS},
        {"disk": "/disks/b1"},
    ],
)
def test_what_cannot_stand_on_a_command_line_is_refused(wrong):
    with pytest.raises(RootError):
        NfsRoot(SERVER, **{"path": "/boards/b1", **wrong})


def test_the_initramfs_has_the_program_that_the_words_name():
    ((path, content),) = initramfs_files().items()
    assert f"rdinit={path}" in kernel_words(NfsRoot(SERVER, "/x"))
    for word in ("root", "root_upper", "root_identity", "root_options", "root_init"):
        assert f"boardhand.{word}".encode() in content
