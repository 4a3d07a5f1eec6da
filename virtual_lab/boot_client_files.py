"""What the clients of `boot_clients` boot: Debian's kernel for them, and an initramfs that says how far it came.

The initramfs is the one that boards get, with a client that reports on the console and switches the machine off.

`python -m virtual_lab.boot_client_files` fetches what tests need, so that none of them waits for a download.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from firmware_tools import debian_packages, initramfs, kernel_modules
from firmware_tools.debian_packages import cache_dir
from firmware_tools.image import device_tree
from virtual_lab.boot_clients import KINDS, Kind, Machine, machine_arguments
from virtual_lab.namespace import LabError

Progress = Callable[[str, int, int | None], None]
MODULES = ("virtio_pci", "virtio_net")
_WITHOUT_LINUX = frozenset({"riscv64"})  # in Debian 12; see `tiny_kernel_riscv64`
# A machine that QEMU emulates with the whole computer busy.
_DUMP_TIMEOUT_S = 60.0
_REPORT = """\
#!/bin/busybox sh
echo "boot-client: kernel $(uname -r) on $(uname -m), host $(hostname)"
echo "boot-client: address $(ip -4 -o addr | sed -n 's/.* inet \\(10[0-9./]*\\).*/\\1/p')"
echo "boot-client: cmdline $(cat /proc/cmdline)"
echo "boot-client: done"
poweroff -f
"""


class ClientFilesError(LabError):
    """A boot file of a client cannot be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """Files that netboot serves to a client. `device_tree` is None where the firmware has its own."""

    kernel: Path
    initrd: Path
    device_tree: Path | None
    version: str


def get(machine: Machine, cache: Path, folder: Path, progress: Progress) -> ClientFiles:
    """The files for `machine`: the kernel from `cache`, fetched once; the rest written to `folder`.

    Raises:
        ClientFilesError: the kernel cannot be fetched, or a part cannot be made.
    """
    kind = KINDS[machine]
    try:
        kernel = debian_packages.fetch_kernel(kind.arch, cache, progress)
        busybox = debian_packages.fetch_busybox(kind.arch, cache, progress)
        folder.mkdir(parents=True, exist_ok=True)
        report = folder / "client.sh"
        report.write_text(_REPORT, encoding="ascii")
        initrd = folder / f"initrd-{kind.arch}.img"
        initramfs.build_board_initramfs(
            initrd,
            arch=kind.arch,
            busybox=busybox,
            modules=kernel_modules.resolve(kernel.modules_dir, MODULES),
            client="busybox",
            client_file=report,
        )
        tree = None
        if kind.firmware is not None and kind.variables is None:
            tree = folder / f"{machine}.dtb"
            _dump_device_tree(kind, tree)
    except (
        debian_packages.PackageError, initramfs.InitramfsError, kernel_modules.KernelModuleError, OSError,
    ) as error:  # fmt: skip
        raise ClientFilesError(f"the boot files of {machine} cannot be had: {error}") from error
    # Only U-Boot's `booti` unpacks a kernel by itself; arm's and x86's images are packed as they are.
    packed = machine is Machine.UBOOT_ARM64
    return ClientFiles(kernel.image_gz if packed else kernel.image, initrd, tree, kernel.version)


def _dump_device_tree(kind: Kind, target: Path) -> None:
    raw = target.with_suffix(".raw")
    command = [*machine_arguments(kind, f"dumpdtb={raw}"), "-monitor", "none", "-serial", "none", "-nic", "none"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DUMP_TIMEOUT_S, check=False
        )
        tree = device_tree.read(raw.read_bytes())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClientFilesError(f"{kind.qemu} did not write its device tree: {error}") from error
    except device_tree.DeviceTreeError as error:
        raise ClientFilesError(f"{kind.qemu} wrote no device tree: {error}; {done.stderr}") from error
    raw.unlink()
    target.write_bytes(device_tree.write(tree))


def fetch(cache: Path, progress: Progress) -> None:
    """Fetch kernels, busybox and GRUB of all machines into `cache`, where they are not there yet.

    Raises:
        ClientFilesError: one cannot be fetched.
    """
    try:
        for arch in sorted({kind.arch for kind in KINDS.values()} - _WITHOUT_LINUX):
            debian_packages.fetch_kernel(arch, cache, progress)
            debian_packages.fetch_busybox(arch, cache, progress)
            if arch in debian_packages.GRUB_PACKAGES:
                debian_packages.fetch_grub(arch, cache, progress)
    except (debian_packages.PackageError, OSError) as error:
        raise ClientFilesError(f"the boot files of the clients cannot be had: {error}") from error


def main() -> int:
    """Entry point."""
    told: set[str] = set()

    def progress(text: str, _done: int, total: int | None) -> None:
        if text not in told:
            told.add(text)
            size = f" ({total / 1e6:.0f} MB)" if total is not None and total > 1_000_000 else ""
            sys.stdout.write(f"boot files of the clients: {text}{size}\n")
            sys.stdout.flush()

    try:
        fetch(cache_dir(), progress)
    except ClientFilesError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
