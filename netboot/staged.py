"""Files that labgrid's TFTPProvider has staged: links in a board's folder that point into labgrid's cache.

labgrid copies a file to `/var/cache/labgrid/USER/SHA256/` and links it into the provider's `internal` folder
(labgrid/util/managedfile.py); the board asks for `external` and the link's name. The links are absolute and lead out of
the folder, so they are read here, and only the caches are allowed behind them.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from netboot.safe_open import UnsafePathError


@dataclass(frozen=True, slots=True)
class StagedTree:
    """`root` holds a folder per board; links in it may point into `caches`. All absolute.

    Raises:
        ValueError: a path is not absolute.
    """

    root: Path
    caches: tuple[Path, ...]

    def __post_init__(self) -> None:
        for path in (self.root, *self.caches):
            if not path.is_absolute():
                raise ValueError(f"{path} must be an absolute path")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """`path` lies below `root`; who opens it must not follow a link out of `root` (`safe_open.open_beneath`)."""

    path: Path
    root: Path


def resolve(tree: StagedTree, folder: str, name: str) -> FoundFile | None:
    """The file staged as `name` in `folder`, None where there is none. Asks the disk: not for the event loop.

    Raises:
        UnsafePathError: it is neither a file nor a link into a cache.
        OSError: it cannot be looked at.
    """
    for part in (folder, name):
        if part in {"", ".", ".."} or "/" in part or "\0" in part:
            raise UnsafePathError(errno.EACCES, "not a plain name", part)
    home = tree.root / folder
    staged = home / name
    try:
        if stat.S_ISLNK(home.lstat().st_mode):
            raise UnsafePathError(errno.EACCES, "a board's folder must not be a link", str(home))
        if not stat.S_ISLNK(staged.lstat().st_mode):
            return FoundFile(staged, home)
        target = staged.readlink()
    except (FileNotFoundError, NotADirectoryError):
        return None
    # By the letters of the path, and not by `resolve`: what lies behind may change until it is opened below its root.
    wanted = Path(os.path.normpath(home / target))
    for cache in tree.caches:
        if wanted != cache and wanted.is_relative_to(cache):
            return FoundFile(wanted, cache)
    caches = ", ".join(str(cache) for cache in tree.caches)
    raise UnsafePathError(errno.EACCES, f"it is a link to {wanted}, which is in none of labgrid's caches ({caches})")
