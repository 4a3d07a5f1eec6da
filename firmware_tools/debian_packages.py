"""Gets kernels, busybox and Python for a board's architecture from the Debian packages of this machine's own apt
sources: without root, and without telling dpkg about a foreign architecture.

It is done with a private view: apt is run with its own lists folder and the foreign architecture as the only one.
Everything is kept below `into`; a second call with the same folder touches no network. Delete the folder to fetch
a newer version.
"""

import fcntl
import gzip
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from firmware_tools.apt_view import AptView as AptView  # noqa: PLC0414  # packages are asked for here
from firmware_tools.apt_view import PackageError as PackageError  # noqa: PLC0414
from firmware_tools.apt_view import Progress as Progress  # noqa: PLC0414
from firmware_tools.apt_view import say_nothing as say_nothing  # noqa: PLC0414

GZIP_LEVEL = 6  # 9 takes four times as long for 1 % less

KERNEL_METAPACKAGES = {
    # Debian's name first, then Ubuntu's
    "arm64": ("linux-image-arm64", "linux-image-generic"),
    "amd64": ("linux-image-amd64", "linux-image-generic"),
    "armhf": ("linux-image-armmp", "linux-image-generic"),
    "riscv64": ("linux-image-riscv64", "linux-image-generic"),
}
LEFT_OUT_OF_KERNELS = re.compile(
    # Half of a kernel package's 350 MB; no board that boots from the network needs them to come up, and nothing that
    # stays needs one of them.
    r"/kernel/(sound|drivers/(gpu|media|staging|infiniband|net/wireless|iio|isdn))/"
)
KERNEL_LAYOUT = "2"
"""Rises when what is kept of a kernel changes, so that an older cache is made anew."""
GRUB_PACKAGES = {"arm64": "grub-efi-arm64-signed", "amd64": "grub-efi-amd64-signed"}
NETBOOT_GRUB = re.compile(r"lib/grub/[^/]+-efi-signed/grubnet[a-z0-9]+\.efi\.signed")
PYTHON_PACKAGES = ("python3-minimal", "libpython3-stdlib")
NOT_FOR_PYTHON = re.compile(r"^(dpkg|debconf|media-types|mime-support|tar|python3-distutils|libdb|libncurses|readline)")


@dataclass(frozen=True, slots=True)
class KernelTree:
    """An unpacked kernel.

    Attributes:
        arch: Debian's name of the architecture.
        version: as in `uname -r`.
        image: what a boot loader starts (`Image` on arm64, `bzImage` on amd64).
        image_gz: the same, packed with gzip.
        modules_dir: `lib/modules/<version>`.
    """

    arch: str
    version: str
    image: Path
    image_gz: Path
    modules_dir: Path


def cache_dir() -> Path:
    """Where fetched packages are kept: `$BOARDHAND_CACHE`, else the XDG cache folder's `boardhand`."""
    own = os.environ.get("BOARDHAND_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "boardhand"


@contextmanager
def _alone(into: Path, name: str) -> Iterator[Path]:
    """The folder `into/name`, for one process at a time."""
    into.mkdir(parents=True, exist_ok=True)
    with (into / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield into / name


def _unpack(deb: Path, into: Path, wanted: Callable[[str], bool]) -> None:
    """Unpacks the files and links of a package for which `wanted(path)`; paths are without `./` and, since packages
    differ in whether `lib` is merged into `usr`, without `usr/`."""
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child, _tar_stream(child) as tar:
            for member in tar:
                path = member.name.removeprefix("./").removeprefix("usr/")
                if path and ".." not in path.split("/") and wanted(path):
                    _unpack_member(tar, member, into / path)
    except (OSError, tarfile.TarError) as error:
        raise PackageError(f"{deb}: cannot be unpacked: {error}; is dpkg-deb there, and the disk not full?") from error
    if child.returncode:
        raise PackageError(f"{deb}: dpkg-deb cannot read it; delete {deb.parent} and try again")


def _tar_stream(child: subprocess.Popen[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=child.stdout, mode="r|")


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Writes one file or symbolic link. Other kinds, and owners, do not matter to what is packed later."""
    if not (member.issym() or member.isfile()):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif (source := tar.extractfile(member)) is not None:
        with target.open("wb") as out:
            shutil.copyfileobj(source, out)
        target.chmod(member.mode & 0o777)


def _kernel_packages(apt: AptView) -> list[str]:
    """The package with the image, and on Ubuntu the one with its modules. The version in the name moves with every
    security update, so the metapackage is asked."""
    names = KERNEL_METAPACKAGES.get(apt.arch)
    if names is None:
        raise PackageError(f"no kernel package is known for {apt.arch}; known: {', '.join(KERNEL_METAPACKAGES)}")
    for name in names:
        if apt.fields(name) is None:
            continue
        image = next((found for found in apt.depends(name) if re.match(r"linux-image-\d", found)), None)
        if image is not None:
            return [image, *(found for found in apt.depends(image) if found.startswith("linux-modules-"))]
    raise apt.missing(names[0])


def fetch_kernel(arch: str, into: Path, progress: Progress = say_nothing, sources: str | None = None) -> KernelTree:
    """The distribution's kernel for `arch` (Debian's name, as `arm64`), unpacked below `into`.

    Raises:
        PackageError: it cannot be had.
    """
    with _alone(into, f"kernel-{arch}") as folder:
        if _kernel_notes(folder).get("layout") != KERNEL_LAYOUT:
            _renew(
                folder,
                lambda fresh: _make_kernel(AptView(arch, into / f"apt-{arch}", progress, sources), fresh, progress),
            )
        version = _kernel_notes(folder)["version"]
    return KernelTree(arch, version, folder / "Image", folder / "Image.gz", folder / "lib/modules" / version)


def _kernel_notes(folder: Path) -> dict[str, str]:
    try:
        notes: dict[str, str] = json.loads((folder / "tree.json").read_text())
    except (OSError, ValueError):
        return {}  # never made, or by hand: it is made anew
    return notes


def _renew(folder: Path, make: Callable[[Path], None]) -> None:
    """Makes `folder` whole or not at all."""
    fresh = folder.with_name(folder.name + ".new")
    for old in (fresh, folder):
        shutil.rmtree(old, ignore_errors=True)
    fresh.mkdir(parents=True)
    make(fresh)
    fresh.rename(folder)


def _make_kernel(apt: AptView, folder: Path, progress: Progress) -> None:
    apt.update()
    packages = _kernel_packages(apt)
    debs = apt.download(packages, folder / "deb")
    for number, deb in enumerate(debs):
        progress(f"unpack {deb.name}", number, len(debs))
        _unpack(deb, folder, lambda path: not LEFT_OUT_OF_KERNELS.search(path) and path.startswith(("boot/", "lib/")))
    images = sorted((folder / "boot").glob("vmlinu[xz]-*"))
    if not images:
        raise PackageError(f"{packages[0]} holds no boot/vmlinuz-*; fetch a kernel by hand")
    raw = images[0].read_bytes()
    if raw.startswith(b"\x1f\x8b"):  # Ubuntu's arm64 kernels are packed as they are
        raw = gzip.decompress(raw)
    progress("pack kernel image", 0, 1)
    (folder / "Image").write_bytes(raw)
    (folder / "Image.gz").write_bytes(gzip.compress(raw, GZIP_LEVEL, mtime=0))
    progress("pack kernel image", 1, 1)
    version = re.sub(r"^vmlinu[xz]-", "", images[0].name)
    shutil.rmtree(folder / "deb")
    images[0].unlink()
    (folder / "tree.json").write_text(json.dumps({"layout": KERNEL_LAYOUT, "version": version, "package": packages[0]}))


def fetch_busybox(arch: str, into: Path, progress: Progress = say_nothing, sources: str | None = None) -> Path:
    """A statically linked busybox for `arch`.

    Raises:
        PackageError: it cannot be had.
    """
    with _alone(into, f"busybox-{arch}") as folder:
        if not (folder / "busybox").is_file():
            _renew(folder, lambda fresh: _make_busybox(AptView(arch, into / f"apt-{arch}", progress, sources), fresh))
    return folder / "busybox"


def _make_busybox(apt: AptView, folder: Path) -> None:
    apt.update()
    if apt.fields("busybox-static") is None:
        raise apt.missing("busybox-static")
    for deb in apt.download(["busybox-static"], folder / "deb"):
        _unpack(deb, folder, lambda path: path == "bin/busybox")
    (folder / "bin/busybox").rename(folder / "busybox")
    shutil.rmtree(folder / "deb")


def fetch_python(arch: str, into: Path, progress: Progress = say_nothing) -> Path:
    """The root of a small file tree for `arch` that has `bin/python3` and what that needs to run.

    Raises:
        PackageError: it cannot be had.
    """
    with _alone(into, f"python-{arch}") as folder:
        if not (folder / "bin/python3").is_symlink():
            _renew(folder, lambda fresh: _make_python(arch, into, fresh, progress))
    return folder


def _make_python(arch: str, into: Path, folder: Path, progress: Progress) -> None:
    apt = AptView(arch, into / f"apt-{arch}", progress)
    apt.update()
    wanted, seen = list(PYTHON_PACKAGES), set(PYTHON_PACKAGES)
    for name in wanted:  # grows while it is walked
        for found in apt.depends(name):
            if found not in seen and not NOT_FOR_PYTHON.match(found):
                seen.add(found)
                wanted.append(found)
    debs = apt.download(wanted, folder / "deb")
    for number, deb in enumerate(debs):
        progress(f"unpack {deb.name}", number, len(debs))
        _unpack(deb, folder, lambda path: path.startswith(("bin/python3", "lib/")))
    shutil.rmtree(folder / "deb")
    if not (folder / "bin/python3").exists():
        raise PackageError(f"{', '.join(PYTHON_PACKAGES)} for {arch} hold no usr/bin/python3")


def fetch_grub(arch: str, into: Path, progress: Progress = say_nothing) -> Path:
    """GRUB for UEFI that boots from the network, one signed file. It looks for `grub/grub.cfg` where it came from.

    Raises:
        PackageError: it cannot be had.
    """
    package = GRUB_PACKAGES.get(arch)
    if package is None:
        raise PackageError(f"no package with GRUB for UEFI is known for {arch}; known: {', '.join(GRUB_PACKAGES)}")
    with _alone(into, f"grub-{arch}") as folder:
        if not (folder / "grubnet.efi").is_file():
            _renew(folder, lambda fresh: _make_grub(AptView(arch, into / f"apt-{arch}", progress), package, fresh))
    return folder / "grubnet.efi"


def _make_grub(apt: AptView, package: str, folder: Path) -> None:
    apt.update()
    if apt.fields(package) is None:
        raise apt.missing(package)
    for deb in apt.download([package], folder / "deb"):
        _unpack(deb, folder, lambda path: NETBOOT_GRUB.fullmatch(path) is not None)
    shutil.rmtree(folder / "deb")
    found = sorted((folder / "lib").rglob("grubnet*"))
    if not found:
        raise PackageError(f"{package} holds no lib/grub/*-efi-signed/grubnet*.efi.signed")
    found[0].rename(folder / "grubnet.efi")
