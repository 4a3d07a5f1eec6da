"""Which modules, in which order: on Debian's real arm64 kernel, with busybox's depmod as the judge."""

import gzip
import lzma
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_tools.kernel_modules import BOARD_MODULES, KernelModuleError, load_order, plain_name, read_module, resolve


def test_a_module_comes_after_what_it_needs(kernel):
    found = [plain_name(path.name) for path in resolve(kernel.modules_dir, ["virtio_net", "virtio-pci"])]
    assert found.index("failover") < found.index("net_failover") < found.index("virtio_net")
    assert len(found) == len(set(found))


def test_all_that_boards_need_is_in_the_kernel(kernel):
    assert {path.name for path in resolve(kernel.modules_dir, BOARD_MODULES)} >= {"virtio_net.ko", "e1000.ko"}


def test_modinfo_and_depmod_agree(kernel, tmp_path):
    wanted = ["virtio_net", "nfsv4", "overlay", "usb-storage"]
    files = resolve(kernel.modules_dir, wanted)
    tree = tmp_path / "lib/modules" / kernel.version
    for path in files:
        copy = tree / path.relative_to(kernel.modules_dir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    shutil.copy(kernel.modules_dir / "modules.builtin", tree)
    from_modinfo = [path.name for path in resolve(tree, wanted)]
    subprocess.run(["busybox", "depmod", "-b", tmp_path, kernel.version], check=True, capture_output=True, timeout=60)
    table = (tree / "modules.dep").read_text()
    assert "virtio_net.ko: " in table
    from_depmod = [path.name for path in resolve(tree, wanted)]
    assert set(from_depmod) == set(from_modinfo)
    for line in table.splitlines():
        module, _, needed = line.partition(":")
        for other in needed.split():
            assert from_modinfo.index(other.rsplit("/", 1)[-1]) < from_modinfo.index(module.rsplit("/", 1)[-1])


def test_built_in_modules_are_left_out_and_missing_ones_named(tmp_path):
    (tmp_path / "modules.builtin").write_text("kernel/net/af-packet.ko\n")
    assert resolve(tmp_path, ["af_packet"]) == []
    with pytest.raises(KernelModuleError, match="warp_drive"):
        resolve(tmp_path, ["warp_drive"])
    with pytest.raises(KernelModuleError, match="no such folder"):
        resolve(tmp_path / "none", ["x"])


@pytest.mark.parametrize(("suffix", "pack"), [(".ko", bytes), (".ko.xz", lzma.compress), (".ko.gz", gzip.compress)])
def test_packed_modules_are_unpacked(tmp_path, suffix, pack):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(pack(b"\x7fELF..."))
    assert read_module(path) == b"\x7fELF..."


def test_zstd_is_left_to_its_program(tmp_path, monkeypatch):
    path = tmp_path / "m.ko.zst"
    path.write_bytes(b"packed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KernelModuleError, match="install the program zstd"):
        read_module(path)
    program = tmp_path / "zstd"
    program.write_text('#!/bin/sh\n[ "$1" = -dcq ] && echo "unpacked $2"\n')
    program.chmod(0o755)
    assert read_module(path) == f"unpacked {path}\n".encode()
    program.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(KernelModuleError, match="cannot unpack"):
        read_module(path)


@pytest.mark.parametrize("content", [b"no elf", b""])
def test_a_module_that_is_none_is_named(tmp_path, content):
    (tmp_path / "m.ko").write_bytes(content)
    with pytest.raises(KernelModuleError, match=r"m\.ko"):
        resolve(tmp_path, ["m"])
    (tmp_path / "x.ko.xz").write_bytes(content)
    with pytest.raises(KernelModuleError, match=r"x\.ko\.xz"):
        resolve(tmp_path, ["x"])


numbers = st.integers(0, 9)


@given(st.dictionaries(numbers, st.lists(numbers, max_size=4)), st.lists(numbers, max_size=5), st.booleans())
def test_any_graph_has_an_order_even_with_rings(graph, wanted, rings):
    if not rings:
        graph = {name: [other for other in needed if other < name] for name, needed in graph.items()}
    order = load_order([str(n) for n in wanted], lambda name: [str(n) for n in graph.get(int(name), [])])
    assert len(order) == len(set(order)) and {str(n) for n in wanted} <= set(order)
    for name in order:
        for needed in graph.get(int(name), []):
            assert str(needed) in order
            assert rings or order.index(str(needed)) < order.index(name)
