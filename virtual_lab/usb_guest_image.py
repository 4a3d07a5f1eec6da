"""The root file system of the USB guest: Debian's packages, a part of its kernel's modules, and our Python packages.

Made without root, and without running anything of it: packages are unpacked, not configured. That is enough for udev,
Python and Mosquitto started by hand, and takes 11 s where a configured system takes 43 s. Our own source is not in it:
it travels in the initramfs of each run, so the image is made anew only when its recipe changes.
"""

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from firmware_tools import debian_packages
from firmware_tools.debian_packages import KernelTree
from virtual_lab.namespace import LabError

ARCH = "amd64"
LAYOUT = 1
"""Rises when what is done here changes the image in a way that `_recipe` does not show."""
PACKAGES = (
    "base-files", "base-passwd", "bash", "coreutils", "dash", "dfu-util", "findutils", "grep", "iproute2", "kmod",
    "libc-bin", "mosquitto", "mosquitto-clients", "mount", "procps", "python3", "sed", "udev", "uhubctl", "usb.ids",
    "usbutils", "util-linux",
)  # fmt: skip
MODULE_FOLDERS = (
    "crypto", "lib", "arch/x86/crypto", "drivers/block", "drivers/char", "drivers/hid", "drivers/input", "drivers/usb",
    "drivers/virtio", "fs/configfs", "fs/ext4", "fs/jbd2", "fs/mbcache", "fs",
)  # fmt: skip
"""Folders below `kernel/` that are copied; `fs` alone would be 20 MB of file systems, so of it only plain files."""
WHEELS = "opt/wheels"
"""Where our Python packages are, inside the guest."""
# Wheels name the oldest C library that they run on; Debian 12 has 2.36.
PLATFORMS = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
PACKAGES_TIMEOUT_S = 600.0
WHEELS_TIMEOUT_S = 300.0
# e2fsprogs is in sbin, which is not on an ordinary user's PATH.
SBIN = "/usr/sbin:/sbin"
SPARE_BYTES = 96 * 1024 * 1024
"""What the guest may write. The image is sparse."""

Progress = Callable[[str], None]


class GuestImageError(LabError):
    """The image cannot be made; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class GuestImage:
    """What QEMU boots: a kernel, a busybox for its initramfs, and a root file system that is never written to."""

    kernel: KernelTree
    busybox: Path
    root: Path


def _say(text: str) -> None:
    print(f"usb guest: {text}", file=sys.stderr, flush=True)  # noqa: T201  # a build of half a minute must show itself


def host_release(os_release: Path = Path("/etc/os-release")) -> str:
    """The code name of this machine's distribution, whose packages the guest is made of.

    Raises:
        GuestImageError: it has none.
    """
    text = os_release.read_text(encoding="utf-8") if os_release.is_file() else ""
    found = re.search(r'^VERSION_CODENAME="?([a-z0-9-]+)', text, re.MULTILINE)
    if found is None:
        raise GuestImageError(f"{os_release} names no VERSION_CODENAME; the guest is made on Debian or Ubuntu")
    return found[1]


def apt_sources(folder: Path = Path("/etc/apt")) -> list[Path]:
    """The files in which this machine's own packages come from.

    Raises:
        GuestImageError: there are none.
    """
    parts = folder / "sources.list.d"
    candidates = [folder / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    names = re.compile(r"^(sources\.list|(debian|ubuntu).*)$")
    found = [path for path in candidates if names.match(path.name) and path.is_file() and path.stat().st_size]
    if not found:
        raise GuestImageError(f"no {folder}/sources.list and no debian.sources: nothing says where packages come from")
    return found


def our_requirements() -> list[str]:
    """What boardhand stands on, without extras, as pip takes it.

    Raises:
        GuestImageError: boardhand is not installed here.
    """
    try:
        lines = requires("boardhand") or []
    except PackageNotFoundError as error:
        raise GuestImageError("boardhand is not installed in this Python: run `make test-usb`") from error
    return sorted(line for line in lines if "extra ==" not in line)


def guest_image(folder: Path, progress: Progress = _say) -> GuestImage:
    """The image, from `folder` if it was made there before by this recipe, else made now (half a minute, 250 MB).

    Raises:
        GuestImageError: a program is missing, or packages cannot be had.
        PackageError: the kernel cannot be had.
    """
    if not (folder / f"kernel-{ARCH}").is_dir():
        progress("fetching Debian's kernel (70 MB)")
    kernel = debian_packages.fetch_kernel(ARCH, folder)
    busybox = debian_packages.fetch_busybox(ARCH, folder)
    recipe = _recipe(kernel)
    own = folder / "usb-guest"
    own.mkdir(parents=True, exist_ok=True)
    root = own / f"root-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.img"
    with (own / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_file():
            for old in own.glob("root-*.img"):
                old.unlink()
            _make(own, kernel, root, progress)
    return GuestImage(kernel, busybox, root)


def _recipe(kernel: KernelTree) -> str:
    parts = [LAYOUT, host_release(), PACKAGES, MODULE_FOLDERS, PLATFORMS, our_requirements(), kernel.version]
    return json.dumps(parts)


def _make(own: Path, kernel: KernelTree, root: Path, progress: Progress) -> None:
    tree, fresh = own / "tree", root.with_suffix(".new")
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    try:
        progress(f"unpacking Debian's packages (log: {own / 'packages.log'})")
        _unpack_packages(own, tree)
        progress(f"fetching our Python packages (log: {own / 'wheels.log'})")
        _add_wheels(own, tree)
        progress("writing the disk image")
        _add_modules(kernel, tree)
        _write_image(own, tree, fresh)
        fresh.replace(root)
    finally:
        fresh.unlink(missing_ok=True)
        shutil.rmtree(tree, ignore_errors=True)


def _run(command: Sequence[str | Path], log: Path, timeout_s: float, package: str) -> None:
    """Run one program, with its output in `log`.

    Raises:
        GuestImageError: it is not there (install `package`), fails, or takes too long.
    """
    name = Path(command[0]).name
    program = shutil.which(str(command[0])) or shutil.which(name, path=SBIN)
    if program is None:
        raise GuestImageError(f"{name} is not there: apt-get install --no-install-recommends {package}")
    try:
        with log.open("wb") as out:
            done = subprocess.run(
                [program, *map(str, command[1:])],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise GuestImageError(f"{name} took over {timeout_s:g} s; its words are in {log}") from error
    if done.returncode:
        words = log.read_text(encoding="utf-8", errors="replace").strip()[-1000:]
        raise GuestImageError(f"{name} ended with {done.returncode}: {words}")


def network_settings(dump: str) -> str:
    """Of what `apt-config dump` says, how this machine reaches its package servers: proxies, certificates."""
    lines = re.findall(r"^Acquire::(?:http|https|ftp)(?:::\S*)? .*;$", dump, re.MULTILINE)
    return "".join(f"{line}\n" for line in [*lines, 'Acquire::Languages "none";', 'Acquire::Retries "2";'])


def _unpack_packages(own: Path, tree: Path) -> None:
    archive, settings = own / "packages.tar", own / "apt.conf"
    settings.touch(0o600)  # a proxy's address may hold a password: it goes by file, and stays out of the image
    _run(["apt-config", "dump"], settings, PACKAGES_TIMEOUT_S, "apt")
    settings.write_text(network_settings(settings.read_text(encoding="utf-8")), encoding="utf-8")
    # The packages still have files below /lib as well as below /usr/lib; configured systems have one folder for both.
    links = "; ".join(f'mkdir -p "$1/{target}" && ln -s {target} "$1/{link}"' for link, target in LINKS.items())
    _run(
        [
            "mmdebstrap", "--mode=chrootless", "--variant=extract", f"--architectures={ARCH}",
            f"--include={','.join(PACKAGES)}",
            f"--aptopt={settings}", f"--setup-hook={links}", "--format=tar", host_release(), archive, *apt_sources(),
        ],
        own / "packages.log", PACKAGES_TIMEOUT_S, "mmdebstrap",
    )  # fmt: skip
    # Owners do not matter to a guest in which everybody is root; device nodes come from the guest's kernel.
    unpack: list[str | Path] = ["tar", "-x", "-f", archive, "-C", tree, "--no-same-owner", "--exclude=./dev/*"]
    left_out = ["etc/apt", "usr/share/doc", "usr/share/man", "usr/share/locale"]
    _run([*unpack, *(f"--exclude=./{name}" for name in left_out)], own / "unpack.log", PACKAGES_TIMEOUT_S, "tar")
    archive.unlink()
    settings.unlink()
    (tree / "usr/bin/sh").unlink(missing_ok=True)
    (tree / "usr/bin/sh").symlink_to("dash")
    for name in ("passwd", "group"):  # what base-passwd would have made of them when configured
        shutil.copyfile(tree / f"usr/share/base-passwd/{name}.master", tree / "etc" / name)
    with (tree / "etc/group").open("a", encoding="ascii") as groups:  # udev's rules name them
        groups.writelines(
            f"{name}:x:{900 + number}:\n" for number, name in enumerate(("input", "kvm", "render", "sgx"))
        )
    for name in ("boardhand", "dev", "proc", "sys", "run", "tmp"):
        (tree / name).mkdir(exist_ok=True)


def guest_python(tree: Path) -> str:
    """`3.11`: the version of the Python in the tree.

    Raises:
        GuestImageError: there is none.
    """
    found = next(iter(sorted(tree.glob("usr/bin/python3.[0-9]*"))), None)
    if found is None:
        raise GuestImageError(f"{tree} holds no usr/bin/python3.*")
    return found.name.removeprefix("python")


def _add_wheels(own: Path, tree: Path) -> None:
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    version = guest_python(tree)
    _run(
        [
            sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile",
            "--only-binary=:all:", *platforms, "--python-version", version, "--target", tree / WHEELS,
            *our_requirements(),
        ],
        own / "wheels.log", WHEELS_TIMEOUT_S, "python3-venv",
    )  # fmt: skip
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here == version:  # or the emulated guest compiles them all at each run
        folders = [tree / WHEELS, tree / f"usr/lib/python{version}"]
        strip = ["-s", str(tree), "-p", "/", "-q"]
        _run([sys.executable, "-m", "compileall", *strip, *folders], own / "compile.log", WHEELS_TIMEOUT_S, "python3")


def _add_modules(kernel: KernelTree, tree: Path) -> None:
    target = tree / "usr/lib/modules" / kernel.version
    target.mkdir(parents=True)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if (kernel.modules_dir / name).is_file():
            shutil.copyfile(kernel.modules_dir / name, target / name)
    for name in MODULE_FOLDERS:
        source = kernel.modules_dir / "kernel" / name
        deep = name != "fs"
        for path in source.rglob("*.ko*") if deep else source.glob("*.ko*"):
            copy = target / path.relative_to(kernel.modules_dir)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    _run(["depmod", "-b", tree / "usr", kernel.version], tree.parent / "depmod.log", PACKAGES_TIMEOUT_S, "kmod")


def _write_image(own: Path, tree: Path, image: Path) -> None:
    used = sum(path.lstat().st_size + 4096 for path in tree.rglob("*"))
    with image.open("wb") as file:
        file.truncate((used * 5 // 4 + SPARE_BYTES) // 4096 * 4096)
    command: list[str | Path] = [
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-E",
        "root_owner=0:0",
        "-d",
        tree,
        image,
    ]
    _run(command, own / "mke2fs.log", PACKAGES_TIMEOUT_S, "e2fsprogs")


if __name__ == "__main__":  # before the tests, so that its progress is seen and no test's time runs meanwhile
    try:
        guest_image(debian_packages.cache_dir())
    except (GuestImageError, debian_packages.PackageError) as problem:
        sys.exit(f"usb guest: {problem}")
