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
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and how much there is (None when that is unknown)."""

APT_QUICK_TIMEOUT_S = 120  # questions to the package cache; the first one builds it
APT_NETWORK_TIMEOUT_S = 900  # 80 MB over 1 Mbit/s
POLL_S = 0.2
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


class PackageError(Exception):
    """A package could not be had. The message says which and what to do."""


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


def say_nothing(_text: str, _done: int, _total: int | None) -> None:
    """A `Progress` for those who do not care."""


def cache_dir() -> Path:
    """Where fetched packages are kept: `$BOARDHAND_CACHE`, else the XDG cache folder's `boardhand`."""
    own = os.environ.get("BOARDHAND_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "boardhand"


class AptView:
    """apt, as if this machine had the architecture `arch` and nothing installed."""

    def __init__(self, arch: str, folder: Path, progress: Progress = say_nothing) -> None:
        self.arch = arch
        self._folder = folder
        self._progress = progress
        self._options = [
            f"-oAPT::Architecture={arch}",
            f"-oAPT::Architectures={arch}",
            f"-oDir::State::Lists={folder / 'lists'}",
            f"-oDir::State::status={folder / 'status'}",
            f"-oDir::Cache={folder / 'cache'}",
            "-oDebug::NoLocking=1",
            "-oAPT::Get::Assume-Yes=1",
            "-oAcquire::Languages=none",
            "-oAcquire::Retries=2",
        ]

    def update(self) -> None:
        """Fetches the package lists. A source that fails is no error by itself: what is then missing will be."""
        for name in ("lists/partial", "cache/archives/partial"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").touch()
        self._progress(f"package lists for {self.arch}", 0, None)
        self._run("apt-get", "update", timeout_s=APT_NETWORK_TIMEOUT_S, check=False)

    def fields(self, package: str) -> dict[str, str] | None:
        """The control fields of a package's newest version, or None when the sources have no such package."""
        text = self._run("apt-cache", "show", "--no-all-versions", package, check=False)
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", text.split("\n\n")[0], re.MULTILINE))
        return fields if fields.get("Package") == package else None

    def depends(self, package: str) -> list[str]:
        """The names of the packages that `package` depends on; of alternatives the first.

        Raises:
            PackageError: the sources have no such package.
        """
        fields = self.fields(package)
        if fields is None:
            raise self._missing(package)
        line = ", ".join(fields[key] for key in ("Pre-Depends", "Depends") if key in fields)
        return [match.group(1) for part in line.split(",") if (match := re.match(r"\s*([a-z0-9][a-z0-9+.-]*)", part))]

    def with_dependencies(self, packages: Sequence[str]) -> list[str]:
        """`packages` and all that they need, recommendations left out, as apt would install them on an empty system.

        Raises:
            PackageError: the sources lack one.
        """
        listing = self._run("apt-get", "install", "--no-install-recommends", "--print-uris", *packages)
        return sorted(set(re.findall(r"^'[^']*' ([a-z0-9][a-z0-9+.-]*)_", listing, re.MULTILINE)))

    def download(self, packages: Sequence[str], into: Path) -> list[Path]:
        """Downloads packages; apt checks them against the signed lists.

        Raises:
            PackageError: one is not there or does not arrive whole.
        """
        into.mkdir(parents=True, exist_ok=True)
        listing = self._run("apt-get", "download", "--print-uris", *packages)
        expected = [(m.group(1), int(m.group(2))) for m in re.finditer(r"^'[^']*' (\S+) (\d+)", listing, re.MULTILINE)]
        total = sum(size for _, size in expected)
        command = ["apt-get", *self._options, "download", *packages]
        log = into / "apt.log"
        with log.open("wb") as out, _spawn(command, out, into) as child:
            until = time.monotonic() + APT_NETWORK_TIMEOUT_S
            while child.poll() is None:
                if time.monotonic() > until:
                    raise PackageError(f"downloading {', '.join(packages)} took over {APT_NETWORK_TIMEOUT_S} s")
                self._progress(f"download {packages[0]}", min(total, _deb_bytes(into)), total)
                time.sleep(POLL_S)
        if child.returncode:
            raise PackageError(f"apt-get download {' '.join(packages)}: {_apt_complaint(log.read_text())}")
        self._progress(f"download {packages[0]}", total, total)
        return sorted(into.glob("*.deb"))

    def _missing(self, package: str) -> PackageError:
        return PackageError(
            f"apt's sources of this machine have no package {package} for {self.arch}. Add a source that has this "
            f"architecture (Ubuntu keeps arm64 on another server than amd64), with [arch={self.arch}], and try again"
        )

    def _run(self, program: str, *arguments: str, timeout_s: float = APT_QUICK_TIMEOUT_S, check: bool = True) -> str:
        command = [program, *self._options, *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, check=False, env=_apt_environment()
            )
        except FileNotFoundError:
            raise PackageError(f"{program} is not there: packages are fetched on Debian and its descendants") from None
        except subprocess.TimeoutExpired:
            raise PackageError(f"{program} {' '.join(arguments)} took over {timeout_s:g} s") from None
        if check and done.returncode:
            raise PackageError(f"{program} {' '.join(arguments)}: {_apt_complaint(done.stderr)}")
        return done.stdout


def _apt_environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


@contextmanager
def _spawn(command: list[str], out: object, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=cwd, env=_apt_environment())  # type: ignore[call-overload]
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def _apt_complaint(text: str) -> str:
    errors = [line[2:].strip() for line in text.splitlines() if line.startswith("E:")]
    return "; ".join(errors) or text.strip()[-300:] or "it failed without a word"


def _deb_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.deb") if path.exists())


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
    raise apt._missing(names[0])  # noqa: SLF001  # the same module


def fetch_kernel(arch: str, into: Path, progress: Progress = say_nothing) -> KernelTree:
    """The distribution's kernel for `arch` (Debian's name, as `arm64`), unpacked below `into`.

    Raises:
        PackageError: it cannot be had.
    """
    with _alone(into, f"kernel-{arch}") as folder:
        if _kernel_notes(folder).get("layout") != KERNEL_LAYOUT:
            _renew(folder, lambda fresh: _make_kernel(arch, into, fresh, progress))
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


def _make_kernel(arch: str, into: Path, folder: Path, progress: Progress) -> None:
    apt = AptView(arch, into / f"apt-{arch}", progress)
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


def fetch_busybox(arch: str, into: Path, progress: Progress = say_nothing) -> Path:
    """A statically linked busybox for `arch`.

    Raises:
        PackageError: it cannot be had.
    """
    with _alone(into, f"busybox-{arch}") as folder:
        if not (folder / "busybox").is_file():
            _renew(folder, lambda fresh: _make_busybox(arch, into, fresh, progress))
    return folder / "busybox"


def _make_busybox(arch: str, into: Path, folder: Path, progress: Progress) -> None:
    apt = AptView(arch, into / f"apt-{arch}", progress)
    apt.update()
    if apt.fields("busybox-static") is None:
        raise apt._missing("busybox-static")  # noqa: SLF001  # the same module
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
        raise apt._missing(package)  # noqa: SLF001  # the same module
    for deb in apt.download([package], folder / "deb"):
        _unpack(deb, folder, lambda path: NETBOOT_GRUB.fullmatch(path) is not None)
    shutil.rmtree(folder / "deb")
    found = sorted((folder / "lib").rglob("grubnet*"))
    if not found:
        raise PackageError(f"{package} holds no lib/grub/*-efi-signed/grubnet*.efi.signed")
    found[0].rename(folder / "grubnet.efi")
