"""A root with everything in it that an import must keep, and how to see all of it."""

import hashlib
import os
import stat
from pathlib import Path

IS_ROOT = os.geteuid() == 0
CAP_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")[:20]
"""`cap_net_raw=ep` as the kernel keeps it: linux/capability.h, struct vfs_cap_data, revision 2."""
BORN_NS = 1_600_000_000_123_456_789
HOLE_BYTES = 8 << 20


def make(root: Path) -> Path:
    """Without root: without owners, devices and attributes of the system, which a user cannot make."""
    for folder in ("etc", "usr/bin", "var/tmp", "empty", "d" * 150 + "/" + "e" * 150):
        (root / folder).mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=debian\n")
    (root / "etc/shadow").write_text("root:*:\n")
    (root / "etc/shadow").chmod(0o640)
    (root / "usr/bin/tool").write_bytes(bytes(range(256)) * 1500)
    (root / "usr/bin/tool").chmod(0o4755)
    os.link(root / "usr/bin/tool", root / "usr/bin/same")
    os.link(root / "usr/bin/tool", root / "etc/the-same")
    (root / "usr/bin/ping").write_bytes(b"ping")
    (root / "bin").symlink_to("usr/bin")
    (root / "etc/absolute").symlink_to("/etc/os-release")
    (root / "etc/long").symlink_to("x" * 180)
    (root / "etc/leads-out").symlink_to("../../../../outside")
    (root / "var/tmp").chmod(0o1777)
    os.mkfifo(root / "var/pipe")
    os.setxattr(root / "etc/os-release", "user.note", b"\0binary\n=\xff")
    for name in (b"not-utf8-\xff\xfe", "Grüße".encode(), b"with\nnewline", b"-rf", b"README", b"readme", b" spaces "):
        (root / os.fsdecode(name)).write_bytes(name)
    (root / ("d" * 150) / ("e" * 150) / ("f" * 200)).write_text("deep")
    with (root / "var/sparse").open("wb") as file:
        file.write(b"head")
        file.seek(HOLE_BYTES)
        file.write(b"tail")
    if IS_ROOT:
        os.chown(root / "etc/shadow", 0, 42)
        os.chown(root / "var/tmp", 1_000_000_000, 3_000_000_000)
        os.lchown(root / "bin", 7, 8)
        os.setxattr(root / "usr/bin/ping", "security.capability", CAP_NET_RAW)
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 300_000))
    for folder, folders, files in os.walk(root, topdown=False):
        for name in [*files, *folders]:
            os.utime(os.path.join(folder, name), ns=(BORN_NS, BORN_NS), follow_symlinks=False)  # noqa: PTH118
    root.chmod(0o755)
    return root


def seen(
    root: Path, *, owners: bool = True, links: bool = True, seconds: bool = False
) -> dict[str, tuple[object, ...]]:
    """All of a tree by path. A file with several names has its first in all of them."""
    first: dict[int, str] = {}
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in sorted(os.walk(root)):
        for name in sorted([*folders, *files]):
            place = Path(folder, name)
            status = place.lstat()
            path = place.relative_to(root).as_posix()
            if path == "lost+found":
                continue
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(place.read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = str(place.readlink())
            elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                content = status.st_rdev
            attributes = {key: os.getxattr(place, key, follow_symlinks=False)
                          for key in os.listxattr(place, follow_symlinks=False)}  # fmt: skip
            alias = first.setdefault(status.st_ino, path) if links and not stat.S_ISDIR(status.st_mode) else path
            time = status.st_mtime_ns // 10**9 if seconds else status.st_mtime_ns
            who = (status.st_uid, status.st_gid) if owners else ()
            found[path] = (status.st_mode, who, time, content, attributes, alias)
    return found


def is_sparse(path: Path) -> bool:
    status = path.stat()
    return status.st_blocks * 512 < status.st_size // 2
