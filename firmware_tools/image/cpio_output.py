"""A tree as an initramfs: the whole root in the board's memory, for boards with enough of it and no NFS."""

import zlib
from collections.abc import Iterator
from pathlib import Path

from firmware_tools import cpio
from firmware_tools.image.tar_output import Count
from firmware_tools.image.tree import Tree

GZIP_LEVEL = 6


def write(tree: Tree, target: Path, count: Count) -> None:
    """Write the archive, packed with gzip. `/init` is added, by which the kernel starts it.

    Raises:
        CpioError: a file is larger than the format can hold.
        OSError: it cannot be written.
    """
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # 16: a gzip header, with time 0
    with target.open("wb") as out:
        for piece in cpio.archive(_entries(tree, count)):
            out.write(packer.compress(piece))
        out.write(packer.flush())


def _entries(tree: Tree, count: Count) -> Iterator[cpio.Entry]:
    if "init" not in tree:
        yield cpio.symlink("init", "sbin/init")
    if "dev/console" not in tree:
        yield cpio.character_device("dev/console", 5, 1)  # the kernel opens it before devtmpfs is there
    for number, (path, known) in enumerate(tree.items(), start=1):
        # A hard link would have to stand beside the others of its file: a copy costs less than that is worth.
        node = tree.get(known.hardlink) or known if known.hardlink else known
        data = node.target.encode() if node.target else tree.content(node) if node.is_file else b""
        yield cpio.Entry(path, node.mode, data, node.device, (node.uid, node.gid), node.mtime_s)
        count(number)
