"""The kernel's NFS server, by a runner in exportfs' place: what is called, in what order, after which accident."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.roots.engine import Export
from netboot.roots.errors import EngineError, RefusedExportError
from netboot.roots.exportfs import Exportfs, options, places
from netboot.roots.program import run_program

ONE, TWO = IPv4Address("10.77.0.11"), IPv4Address("10.77.0.12")


def view(board, client, *, writable=True):
    return Export(f"boards/{board}", Path(f"/srv/{board}"), (client,), writable=writable)


class Kernel:
    """A `Runner` that exports as exportfs does."""

    def __init__(self):
        self.exported = {}
        self.calls = []
        self.refuses = set()

    async def __call__(self, command):
        self.calls.append(tuple(command[1:]))
        if command[1] == "-u":
            if command[2] not in self.exported:
                return 1, f"exportfs: Could not find '{command[2]}' to unexport."
            del self.exported[command[2]]
            return 0, ""
        if command[3] in self.refuses:
            return 1, f"exportfs: {command[3]} does not support NFS export"
        self.exported[command[3]] = command[2]
        return 0, ""


async def test_each_export_is_for_its_clients_and_goes_before_another_comes(tmp_path):
    kernel = Kernel()
    engine = Exportfs(tmp_path, kernel)
    await engine.start([view("b1", ONE)])
    await engine.apply([view("b1", ONE), view("b2", TWO)])
    assert set(kernel.exported) == {"10.77.0.11:/srv/b1", "10.77.0.12:/srv/b2"}
    kernel.calls.clear()
    await engine.apply([view("b1", TWO), view("b2", TWO, writable=False)])
    assert [call[-1] for call in kernel.calls] == [
        "10.77.0.11:/srv/b1", "10.77.0.12:/srv/b2", "10.77.0.12:/srv/b1", "10.77.0.12:/srv/b2"
    ]  # fmt: skip
    assert [call[0] for call in kernel.calls] == ["-u", "-u", "-o", "-o"]
    assert kernel.exported["10.77.0.12:/srv/b2"].startswith("ro,sync,no_subtree_check")
    await engine.stop()
    assert len(kernel.exported) == 2  # boards go on


@pytest.mark.parametrize("rebooted", [False, True])
async def test_after_a_kill_boards_that_run_keep_their_export_and_others_lose_it(tmp_path, rebooted):
    kernel = Kernel()
    await Exportfs(tmp_path, kernel).start([view("b1", ONE), view("b2", TWO)])
    kernel.calls.clear()
    if rebooted:
        kernel.exported.clear()
    await Exportfs(tmp_path, kernel).start([view("b1", ONE)])
    assert set(kernel.exported) == {"10.77.0.11:/srv/b1"}
    assert ("-u", "10.77.0.11:/srv/b1") not in kernel.calls


async def test_what_the_kernel_refuses_is_named_and_tried_again(tmp_path):
    kernel = Kernel()
    kernel.refuses = {"10.77.0.11:/srv/b1"}
    engine = Exportfs(tmp_path, kernel)
    await engine.start()
    with pytest.raises(RefusedExportError, match="does not support NFS export") as caught:
        await engine.apply([view("b1", ONE), view("b2", TWO)])
    assert caught.value.names == ["boards/b1"]
    assert set(kernel.exported) == {"10.77.0.12:/srv/b2"}
    kernel.refuses.clear()
    await engine.apply([view("b1", ONE), view("b2", TWO)])
    assert len(kernel.exported) == 2


async def test_a_record_that_is_spoilt_is_told(tmp_path):
    (tmp_path / "exported.json").write_text("{")
    with pytest.raises(EngineError, match="exportfs -au"):
        await Exportfs(tmp_path, Kernel()).start()


def test_options_name_each_export_by_itself_and_brackets_hold_ipv6():
    one, two = options(view("b1", ONE)), options(view("b2", ONE))
    assert one != two
    assert one == options(view("b1", TWO))
    assert "no_root_squash" in one
    assert places(view("b1", IPv6Address("fd77::11"))) == ["[fd77::11]:/srv/b1"]


@given(st.lists(st.dictionaries(st.sampled_from(["b1", "b2", "b3"]), st.sampled_from([ONE, TWO])), max_size=6))
def test_after_any_changes_the_kernel_has_what_was_last_wanted(tmp_path_factory, steps):
    import asyncio

    async def run():
        kernel = Kernel()
        engine = Exportfs(tmp_path_factory.mktemp("nfs"), kernel)
        await engine.start()
        for wanted in steps:
            await engine.apply([view(board, client) for board, client in wanted.items()])
            assert set(kernel.exported) == {f"{client}:/srv/{board}" for board, client in wanted.items()}

    asyncio.run(run())


async def test_a_program_s_words_and_end_are_told():
    assert await run_program(["sh", "-c", "echo no >&2; exit 3"]) == (3, "no")
    with pytest.raises(EngineError, match="no-such-program cannot be started"):
        await run_program(["no-such-program"])


async def test_the_doctor_says_what_is_missing_for_the_kernel_s_server(tmp_path):
    findings = await Exportfs(tmp_path, Kernel(), threads=tmp_path / "none").check()
    stopped = next(finding for finding in findings if "kernel's NFS server does not run" in finding.what)
    assert "use ganesha" in stopped.advice
    (tmp_path / "threads").write_text("8\n")
    findings = await Exportfs(tmp_path, Kernel(), threads=tmp_path / "threads").check()
    assert any(finding.ok and "kernel's NFS server runs" in finding.what for finding in findings)
