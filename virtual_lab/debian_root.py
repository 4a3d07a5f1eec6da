"""A Debian root for arm64 boards, as one tar: systemd, an SSH server, and our client as a service.

Made from Debian's packages without root's rights and without running anything of theirs: the packages' own tars are
put together to one, as usr-merged Debian lays them out, and what their scripts would have done is written by us. So
owners are right in the tar and nowhere else. Kept below `cache_dir()`, made anew when the recipe or the client changes.

`python -m virtual_lab.debian_root` makes it, so that no test waits for a download.
"""

import fcntl
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from firmware_tools import debian_packages
from firmware_tools.debian_packages import AptView, PackageError, cache_dir
from virtual_lab.debian_root_files import LEFT_OUT, LINKS, PACKAGES, files, folders
from virtual_lab.namespace import LabError

ARCH = "arm64"
CLIENT_FILE = Path(__file__).resolve().parent.parent / "board" / "client.py"
_MERGED = ("bin", "sbin", "lib")
"""Folders that Debian's packages still ship beside `usr/`, and that are links into it."""
_DPKG_TIMEOUT_S = 120.0
Progress = Callable[[str, int, int | None], None]


class DebianRootError(LabError):
    """The root cannot be made; the message names the package and says what to do."""


def get(cache: Path, progress: Progress) -> Path:
    """The root's tar. The first time takes half a minute and 35 MB of download.

    Raises:
        DebianRootError: a package cannot be had, or does not unpack.
    """
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"debian-root-{ARCH}-{_recipe()}.tar"
    with (cache / f".debian-root-{ARCH}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_file():
            fresh = target.with_suffix(".new")
            try:
                debs = _packages(cache, progress)
                progress(f"put the Debian root for {ARCH} together", 0, None)
                _write(debs, fresh)
            except (PackageError, OSError, tarfile.TarError) as error:
                fresh.unlink(missing_ok=True)
                raise DebianRootError(f"the Debian root for {ARCH} cannot be made: {error}") from error
            for old in cache.glob(f"debian-root-{ARCH}-*.tar"):
                old.unlink()
            fresh.replace(target)
    return target


def _recipe() -> str:
    digest = hashlib.sha256()
    for path in (Path(__file__), Path(__file__).with_name("debian_root_files.py"), CLIENT_FILE):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _packages(cache: Path, progress: Progress) -> list[Path]:
    """The packages, from the cache where they are there: a change of our client needs no network."""
    folder = cache / f"debian-root-{ARCH}"
    wanted = hashlib.sha256("\n".join(PACKAGES).encode()).hexdigest()[:16]
    done = folder / wanted
    if not done.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        # A view of its own: somebody else may be fetching a kernel with the usual one.
        apt = AptView(ARCH, cache / f"apt-{ARCH}-root", progress)
        apt.update()
        apt.download(apt.with_dependencies(PACKAGES), folder)
        done.touch()
    return sorted(folder.glob("*.deb"))


def _write(debs: list[Path], target: Path) -> None:
    seen: set[str] = set()
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as out:
        for name in folders():
            out.addfile(_entry(name, tarfile.DIRTYPE, 0o755))
            seen.add(name)
        for name in (*_MERGED, *LINKS):
            seen.add(name)
            out.addfile(_link(name, LINKS.get(name, f"usr/{name}")))
        for file in files(CLIENT_FILE.read_bytes()):
            seen.add(file.path)
            entry = _entry(file.path, tarfile.REGTYPE, file.mode)
            entry.size = len(file.content)
            out.addfile(entry, io.BytesIO(file.content))
        for deb in debs:
            for member, source in _members(deb):
                if member.name not in seen:
                    seen.add(member.name)
                    out.addfile(member, source)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uname, entry.gname = kind, mode, "root", "root"
    return entry


def _link(name: str, target: str) -> tarfile.TarInfo:
    entry = _entry(name, tarfile.SYMTYPE, 0o777)
    entry.linkname = target
    return entry


def _members(deb: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        with tarfile.open(fileobj=child.stdout, mode="r|") as tar:
            for member in tar:
                member.name = merged(member.name)
                if member.islnk():
                    member.linkname = merged(member.linkname)
                if member.name and not LEFT_OUT.match(member.name):
                    yield member, tar.extractfile(member) if member.isreg() else None
        if child.wait(_DPKG_TIMEOUT_S):
            raise PackageError(f"{deb}: dpkg-deb cannot read it; delete {deb.parent} and try again")


def merged(name: str) -> str:
    """Where a package's path goes in a usr-merged root: `./lib/systemd/systemd` is `usr/lib/systemd/systemd`."""
    path = "" if name == "." else name.removeprefix("./").strip("/")
    return f"usr/{path}" if path.partition("/")[0] in _MERGED and "/" in path else path


def main() -> int:
    """Entry point."""
    told: set[str] = set()

    def progress(text: str, _done: int, total: int | None) -> None:
        if text not in told:
            told.add(text)
            size = f" ({total / 1e6:.0f} MB)" if total is not None and total > 1_000_000 else ""
            sys.stdout.write(f"root for boards: {text}{size}\n")
            sys.stdout.flush()

    try:
        get(cache_dir(), progress)
        debian_packages.fetch_kernel(ARCH, cache_dir(), progress)
        debian_packages.fetch_busybox(ARCH, cache_dir(), progress)
    except (DebianRootError, PackageError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
