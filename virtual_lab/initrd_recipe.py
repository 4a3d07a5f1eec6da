"""Which parts make the initramfs of a virtual board; `firmware_tools.initramfs` puts them together."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from firmware_tools import cpio, debian_packages, initramfs, kernel_modules, python_tree
from firmware_tools.debian_packages import KernelTree
from virtual_lab.namespace import LabError

# The network card of QEMU's `virt` machine, on PCI; everything else that boots is built into Debian's kernel.
MODULES = ("virtio_pci", "virtio_net")
_CLIENT_FILES = {"busybox": "client.sh", "python": "client.py"}


class RecipeError(LabError):
    """The initramfs cannot be built; the message says why."""


def build_initrd(
    target: Path,
    kernel: KernelTree,
    client: Literal["busybox", "python"],
    cache: Path,
    progress: Callable[[str, int, int | None], None],
) -> None:
    """Write the initramfs for `kernel` with our client of that kind to `target`.

    Raises:
        RecipeError: a package cannot be had, or a part is missing.
        OSError: `target` cannot be written.
    """
    client_file = Path(__file__).resolve().parent.parent / "board" / _CLIENT_FILES[client]
    try:
        busybox = debian_packages.fetch_busybox(kernel.arch, cache, progress)
        python_root = debian_packages.fetch_python(kernel.arch, cache, progress) if client == "python" else None
        initramfs.build_board_initramfs(
            target,
            arch=kernel.arch,
            busybox=busybox,
            modules=kernel_modules.resolve(kernel.modules_dir, MODULES),
            client=client,
            client_file=client_file,
            python_root=python_root,
        )
    except (
        debian_packages.PackageError,
        initramfs.InitramfsError,
        kernel_modules.KernelModuleError,
        python_tree.PythonTreeError,
        cpio.CpioError,
    ) as error:
        raise RecipeError(f"the initramfs for virtual boards cannot be built: {error}") from error
