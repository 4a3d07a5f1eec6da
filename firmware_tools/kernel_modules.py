"""Which kernel modules must be loaded, and in which order, to get the ones that are wanted.

Dependencies come from `modules.dep` where depmod has run, else from each module's own `.modinfo` section: Debian's
packages carry no `modules.dep`, it is made at installation.
"""

import gzip
import lzma
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from firmware_tools import elf

BOARD_MODULES = ("virtio_pci", "virtio_mmio", "virtio_net", "e1000", "af_packet", "virtio_rng")
"""What a QEMU board needs to reach the network. af_packet is for udhcpc, which is built into some kernels only.
virtio_rng, because a board without entropy waits for it."""
SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
ZSTD_TIMEOUT_S = 60


class KernelModuleError(Exception):
    """A module that is not there or cannot be read. The message names it and says what to do."""


def plain_name(name: str) -> str:
    """A module's name as the kernel writes it: `nf-tables.ko.xz` is `nf_tables`."""
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name.replace("-", "_")


def read_module(path: Path) -> bytes:
    """The module as the kernel takes it, unpacked.

    Raises:
        KernelModuleError: it cannot be read, or it is packed with zstd and nothing here unpacks that.
    """
    try:
        raw = path.read_bytes()
        if path.name.endswith(".xz"):
            return lzma.decompress(raw)
        if path.name.endswith(".gz"):
            return gzip.decompress(raw)
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise KernelModuleError(f"{path}: cannot be read: {error}") from error
    if path.name.endswith(".zst"):
        return _unpack_zstd(path)
    return raw


def _unpack_zstd(path: Path) -> bytes:
    # Python has zstd in its library from 3.14 on only, so this one is the program's business.
    if shutil.which("zstd") is None:
        raise KernelModuleError(f"{path}: is packed with zstd; install the program zstd")
    try:
        done = subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True, timeout=ZSTD_TIMEOUT_S)
    except (subprocess.SubprocessError, OSError) as error:
        raise KernelModuleError(f"{path}: zstd cannot unpack it: {error}") from error
    return done.stdout


def _modinfo_depends(path: Path) -> list[str]:
    try:
        content = elf.section(read_module(path), ".modinfo")
    except elf.ElfError as error:
        raise KernelModuleError(f"{path}: {error}") from error
    for field in (content or b"").split(b"\0"):
        key, _, value = field.partition(b"=")
        if key == b"depends":
            return [name for name in value.decode().split(",") if name]
    return []


def _read_modules_dep(path: Path) -> dict[str, list[str]]:
    """Direct and indirect dependencies by plain name, each list as `modules.dep` has it: nearest first."""
    table = {}
    for line in path.read_text().splitlines():
        module, _, depends = line.partition(":")
        table[plain_name(Path(module).name)] = [Path(name).name for name in depends.split()]
    return table


def _index(modules_dir: Path) -> dict[str, Path]:
    if not modules_dir.is_dir():
        raise KernelModuleError(f"{modules_dir}: there is no such folder; it should hold a kernel's modules")
    found = {}
    for path in sorted(modules_dir.rglob("*.ko*")):
        if path.name.endswith(SUFFIXES):
            found[plain_name(path.name)] = path
    return found


def _builtin(modules_dir: Path) -> set[str]:
    listing = modules_dir / "modules.builtin"
    if not listing.is_file():
        return set()
    return {plain_name(Path(line).name) for line in listing.read_text().splitlines()}


def load_order(wanted: Sequence[str], depends: Callable[[str], Sequence[str]]) -> list[str]:
    """The wanted modules and all that they depend on, each after what it needs, none twice. A ring of
    dependencies, which depmod would refuse, is cut rather than followed for ever."""
    order: dict[str, None] = {}
    under_way: set[str] = set()

    def visit(name: str) -> None:
        if name in order or name in under_way:
            return
        under_way.add(name)
        for needed in depends(name):
            visit(plain_name(needed))
        order[name] = None

    for name in wanted:
        visit(plain_name(name))
    return list(order)


def resolve(modules_dir: Path, wanted: Sequence[str]) -> list[Path]:
    """The files to load, in that order, for the modules `wanted`. Built-in ones are left out.

    `modules_dir` is `lib/modules/<version>` of the kernel.

    Raises:
        KernelModuleError: a module is neither there nor built in, or cannot be read.
    """
    files, builtin = _index(modules_dir), _builtin(modules_dir)
    dep_file = modules_dir / "modules.dep"
    table = _read_modules_dep(dep_file) if dep_file.is_file() else {}

    def depends(name: str) -> Sequence[str]:
        if name in builtin:
            return ()
        if name not in files:
            raise KernelModuleError(f"{modules_dir}: the kernel has no module {name}, neither as a file nor built in")
        return table[name] if name in table else _modinfo_depends(files[name])

    return [files[name] for name in load_order(wanted, depends) if name not in builtin]
