"""A tree as an ext4 file system, without root's rights: mke2fs makes it empty, debugfs fills it from a list.

Both get times from the tree and numbers from the recipe (`E2FSPROGS_FAKE_TIME` of e2fsprogs; UUID and hash seed are
derived), so the same tree gives the same bytes. mke2fs -d would take owners and order from this machine's folders.
"""

import os
import shutil
import stat
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from firmware_tools.image.tar_output import Count, OutputError
from firmware_tools.image.tree import Node, Tree

_NAMESPACE = uuid.UUID("6f0f3c53-5ea1-5d5c-9d0c-0a7f2b7a4b1e")
BLOCK_BYTES = 4096
_MKE2FS_TIMEOUT_S = 300.0
_DEBUGFS_TIMEOUT_S = 1800.0
FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize"
)
"""What Linux and U-Boot of ten years ago read; all are named, because defaults differ between hosts."""
INODE_BYTES = 256
BYTES_PER_INODE = 16384
FULL = ("Could not allocate block", "No free space", "Could not allocate inode", "No space left")


def file_system_id(name: str, source_date_s: int) -> uuid.UUID:
    """The UUID of an image's file system: the same for the same image."""
    return uuid.uuid5(_NAMESPACE, f"{name}/{source_date_s}")


def write(tree: Tree, target: Path, *, name: str, size_bytes: int, source_date_s: int, count: Count) -> uuid.UUID:
    """Write the file system, sparse. Returns its UUID.

    Raises:
        OutputError: e2fsprogs is missing or fails, or the tree does not fit.
        OSError: it cannot be written.
    """
    identifier = file_system_id(name, source_date_s)
    environment = _environment(source_date_s)
    # debugfs cuts nothing: files of the size that was asked for, with room for what the board writes.
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", FEATURES, "-b", str(BLOCK_BYTES), "-m", "1",
               "-I", str(INODE_BYTES), "-i", str(BYTES_PER_INODE), "-U",
               str(identifier), "-E", f"hash_seed={identifier},root_owner=0:0,lazy_itable_init=1,nodiscard",
               "-L", name[:16], str(target), str(size_bytes // BLOCK_BYTES)]  # fmt: skip
    target.unlink(missing_ok=True)
    with target.open("wb") as file:
        file.truncate(size_bytes)
    made = _run(command, environment, _MKE2FS_TIMEOUT_S)
    if made.returncode:
        raise OutputError(f"{target}: mke2fs: {_words(made)}")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".ext4-") as folder:
        script = Path(folder) / "commands"
        with script.open("w", encoding="utf-8", errors="surrogateescape") as out:
            for number, (path, node) in enumerate(tree.items(), start=1):
                out.writelines(f"{line}\n" for line in _commands(tree, path, node, Path(folder), number))
                count(number)
            out.writelines(f"{line}\n" for line in _link_counts(tree))
        filled = _run(["debugfs", "-w", "-f", str(script), str(target)], environment, _DEBUGFS_TIMEOUT_S)
    _judge(target, filled)
    return identifier


def _environment(source_date_s: int) -> dict[str, str]:
    when = str(max(1, source_date_s))
    return {**os.environ, "LC_ALL": "C", "E2FSPROGS_FAKE_TIME": when, "SOURCE_DATE_EPOCH": when, "DEBUGFS_PAGER": "cat"}


def _run(command: list[str], environment: dict[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    program = shutil.which(command[0], path=path)
    if program is None:
        raise OutputError(f"{command[0]} is not there: install the package e2fsprogs")
    try:
        return subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, errors="replace", env=environment,
            timeout=timeout_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise OutputError(f"{command[0]} took over {timeout_s:g} s") from None


def _words(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().replace("\n", "; ")[-300:] or "it failed without a word"


def _judge(target: Path, filled: subprocess.CompletedProcess[str]) -> None:
    """After an error debugfs goes on, and ends with 0: what it complains of counts."""
    complaints = [line for line in filled.stderr.splitlines() if line and not line.startswith("debugfs ")]
    if any(word in line for word in FULL for line in complaints):
        raise OutputError(f"{target}: the root does not fit: raise size in the recipe ({complaints[0]})")
    if filled.returncode or complaints:
        raise OutputError(f"{target}: debugfs: {'; '.join(complaints)[:300] or filled.returncode}")


def _quoted(path: str) -> str:
    if '"' in path or "\n" in path:
        raise OutputError(f"{path!r}: a file of this name cannot be put into an ext4 image; leave it out by leave_out")
    return f'"{path}"'


def _commands(tree: Tree, path: str, node: Node, folder: Path, number: int) -> Iterator[str]:
    """The commands of debugfs(8) that make one path."""
    at, parent = _quoted(f"/{path}"), _quoted(f"/{path.rpartition('/')[0]}")
    yield f"cd {parent}"
    name = _quoted(path.rpartition("/")[2])
    if node.hardlink:
        yield f"ln {_quoted('/' + node.hardlink)} {at}"
        return
    kind = stat.S_IFMT(node.mode)
    if kind == stat.S_IFDIR:
        yield f"mkdir {name}"
    elif kind == stat.S_IFLNK:
        yield f"symlink {name} {_quoted(node.target)}"
    elif kind == stat.S_IFREG:
        content = folder / f"f{number}"
        with content.open("wb") as out:
            out.writelines(tree.pieces(node))
        yield f"write {_quoted(str(content))} {name}"
    elif kind == stat.S_IFIFO:
        yield f"mknod {name} p"
    else:
        yield f"mknod {name} {'c' if kind == stat.S_IFCHR else 'b'} {node.device[0]} {node.device[1]}"
    yield f"sif {name} mode 0{node.mode:o}"
    for key, value in (("uid", node.uid), ("gid", node.gid)):
        if value:
            yield f"sif {name} {key} {value}"
    for key in ("mtime", "atime", "ctime"):
        yield f"sif {name} {key} @{node.mtime_s}"


def _link_counts(tree: Tree) -> Iterator[str]:
    """The ln of debugfs leaves the count of links as it is."""
    counts: dict[str, int] = {}
    for _path, node in tree.items():  # noqa: PERF102  # no dict
        if node.hardlink:
            counts[node.hardlink] = counts.get(node.hardlink, 1) + 1
    for path, links in sorted(counts.items()):
        yield f"sif {_quoted('/' + path)} links_count {links}"
