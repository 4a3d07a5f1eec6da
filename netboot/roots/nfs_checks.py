"""The doctor's look at what roots over NFS need of this host. All are quick and read only; not for the event loop."""

import os
import re
import shutil
from pathlib import Path

from netboot.roots.engine import Finding
from netboot.roots.ganesha_config import PACKAGES, PROGRAM, plugins

_NEEDED = {
    1: "CAP_DAC_OVERRIDE",
    2: "CAP_DAC_READ_SEARCH",
    0: "CAP_CHOWN",
    3: "CAP_FOWNER",
    6: "CAP_SETGID",
    7: "CAP_SETUID",
    21: "CAP_SYS_ADMIN",
    27: "CAP_MKNOD",
}
"""linux/capability.h. SYS_ADMIN mounts; DAC_READ_SEARCH opens by handle; with the others files keep their owners."""
_WHOLE_UID_MAP = ["0", "0", "4294967295"]
_OLDEST = (4, 16)
_NO_UPPER = frozenset({"overlay", "nfs", "nfs4", "cifs", "smb3", "9p", "vfat", "exfat", "ntfs3", "fuseblk", "ecryptfs"})
"""What the kernel takes as no upper layer, or without what an export of it needs."""
_GONE_AT_BOOT = frozenset({"tmpfs", "ramfs"})


def kernel(release: str | None = None, file_systems: bytes | None = None) -> Finding:
    """Whether overlays of this kernel give file handles (nfs_export, Linux 4.16)."""
    numbers = re.match(r"(\d+)\.(\d+)", release if release is not None else os.uname().release)
    version = (int(numbers[1]), int(numbers[2])) if numbers is not None else (0, 0)
    if version < _OLDEST:
        return Finding(False, "the kernel's overlays cannot be exported", "use Linux 4.16 or later")
    known = file_systems if file_systems is not None else Path("/proc/filesystems").read_bytes()
    if b"\toverlay\n" not in known and not _has_module("overlay"):
        return Finding(False, "the kernel has no overlay file system", "use a kernel with CONFIG_OVERLAY_FS")
    return Finding(True, "the kernel's overlays can be exported")


def capabilities(status: str | None = None, uid_map: str | None = None) -> list[Finding]:
    """Whether this process, and so its child, may mount overlays and open files by handle."""
    text = status if status is not None else Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", text, re.MULTILINE)
    held = int(found[1], 16) if found is not None else 0
    missing = [name for bit, name in sorted(_NEEDED.items()) if not held >> bit & 1]
    if missing:
        advice = f"run the agent as root, or give its service AmbientCapabilities={' '.join(sorted(_NEEDED.values()))}"
        return [Finding(False, f"the agent lacks {', '.join(missing)}", advice)]
    ids = uid_map if uid_map is not None else Path("/proc/self/uid_map").read_text(encoding="ascii")
    if ids.split() != _WHOLE_UID_MAP:
        advice = "files are opened by handle outside of user namespaces alone: run it on the host, or privileged"
        return [Finding(False, "the agent is root in a user namespace only", advice)]
    return [Finding(True, "the agent may mount overlays and open files by handle")]


def ganesha_installed(program: str, *, v3: bool, rpcbind: Path = Path("/run/rpcbind.sock")) -> list[Finding]:
    """Whether nfs-ganesha is there, with the back end that it needs."""
    installed = shutil.which(program) is not None
    found = [Finding(installed, f"{PROGRAM} is {'' if installed else 'not '}installed", "" if installed else PACKAGES)]
    if plugins() is None:
        found.append(Finding(False, "ganesha cannot export local folders", PACKAGES))
    else:
        found.append(Finding(True, "ganesha can export local folders"))
    if v3 and not rpcbind.exists():
        found.append(Finding(False, "NFSv3 needs rpcbind, and it does not run", "apt-get install rpcbind"))
    return found


def folder(store: Path, secrets: Path | None = None, mounts: str | None = None) -> list[Finding]:
    """Whether views can lie in `store`. `secrets`: what must not lie on its file system, because a board that forges
    file handles reads any file of it."""
    text = mounts if mounts is not None else Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    point, kind = _file_system(store.absolute(), text)
    if kind in _NO_UPPER:
        advice = "put it on ext4, xfs or btrfs: in a container, on a volume"
        return [Finding(False, f"{store} is on {kind}, which takes no view of a board", advice)]
    if kind in _GONE_AT_BOOT:
        return [Finding(False, f"{store} is on {kind}: roots are gone with the next start", "put it on a disk")]
    found = [Finding(True, f"{store} is on {kind}")]
    if point == "/" or (secrets is not None and _file_system(secrets.absolute(), text)[0] == point):
        advice = "give it a file system of its own: a board with a kernel of its own making can guess file handles"
        what = "with the rest of the system" if point == "/" else f"with {secrets}"
        found.append(Finding(False, f"{store} shares its file system {what}", advice))
    return found


def same_mounts(other: Path = Path("/proc/1/ns/mnt")) -> Finding:
    """Whether the kernel's NFS server, which looks from the first process's mounts, sees the views of this one."""
    try:
        same = other.readlink() == Path("/proc/self/ns/mnt").readlink()
    except OSError as error:
        return Finding(False, f"whose mounts the agent sees is not told: {error.strerror}", "run the agent as root")
    if same:
        return Finding(True, "the kernel's NFS server sees the agent's mounts")
    advice = "take PrivateMounts, PrivateTmp, ProtectSystem and their like out of the agent's service, or use ganesha"
    return Finding(False, "the agent has mounts of its own, which the kernel's NFS server does not see", advice)


def _has_module(name: str) -> bool:
    folder = Path("/lib/modules") / os.uname().release
    try:
        return f"/{name}.ko" in (folder / "modules.dep").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def _file_system(path: Path, mounts: str) -> tuple[str, str]:
    """Mount point and kind of the file system with `path` (proc_pid_mountinfo(5)); the last mount of a point counts."""
    best = ("/", "unknown")
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = fields[4].replace("\\040", " ")
        if (path == Path(point) or Path(point) in path.parents) and len(point) >= len(best[0]):
            best = (point, right.split(" ")[0])
    return best
