"""Small trees that are laid over a root: a board's identity on top, and a veil over it when its view is saved.

What a board has written is hostile: every folder is opened from the one above, and no link is followed.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from netboot.roots.errors import IdentityError
from netboot.roots.identity import BOOT_PATH, MAX_KEPT_BYTES, KeptFile

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_MODES = {"root": 0o700, "root/.ssh": 0o700, "etc/boardhand": 0o700}
_FRESH_NAME = ".boardhand-new"
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


def lay(files: Sequence[KeptFile], tree: Path, layer: Path) -> None:
    """Have `files` in the tree `layer`, which is made if need be; what it has beside them stays. Its folders look as
    those of `tree`, which it lies upon, do.

    Raises:
        IdentityError: a folder on the way is a link or a file.
        OSError: the layer cannot be written.
    """
    if not layer.is_dir():
        layer.mkdir(mode=0o755)
        dress_like(layer, tree.lstat())
    for file in files:
        parts = file.path.split("/")
        with _opened(layer, ()) as top, _opened(tree, ()) as below:
            folder = _made(top, below, parts[:-1])
            try:
                _put(folder, parts[-1], file)
            finally:
                os.close(folder)


def undress(layer: Path, keep: Sequence[KeptFile]) -> None:
    """Delete the files of `layer` that are none of `keep`."""
    wanted = {file.path for file in keep}
    for path in _files(layer):
        if path not in wanted:
            (layer / path).unlink()


def layer_differs(files: Sequence[KeptFile], layer: Path) -> bool:
    """Whether `layer`, which is ours, has anything but `files`. The secret of a boot does not count."""
    if not layer.is_dir():
        return True
    there = set(_files(layer)) - {BOOT_PATH}
    if there != {file.path for file in files}:
        return True
    for file in files:
        place = layer / file.path
        if stat.S_IMODE(place.lstat().st_mode) != file.mode or place.read_bytes() != file.content:
            return True
    return False


def veil(identity: Path, upper: Path, tree: Path, cover: Path) -> None:
    """Make `cover` such that what a board has written over its identity (`upper`) is not seen through it: the files of
    `tree` are in their place, or nothing. It has to be a folder, and lie over both.

    Raises:
        OSError: it cannot be made.
    """
    dress_like(cover, upper.lstat())
    for path in (*_files(identity), BOOT_PATH):
        _cover(path.split("/"), upper, tree, cover)


def dress_like(folder: Path | int, theirs: os.stat_result) -> None:
    """Give `folder` the mode of another, and its owner where we may.

    Raises:
        OSError: it cannot be changed.
    """
    if os.geteuid() == 0:
        os.chown(folder, theirs.st_uid, theirs.st_gid)
    os.chmod(folder, stat.S_IMODE(theirs.st_mode))  # noqa: PTH101  # it may be a descriptor


# --- inside ---


@contextmanager
def _opened(top: Path, parts: Sequence[str]) -> Iterator[int]:
    """The folder at the end of `parts`.

    Raises:
        OSError: it is not there, or something on the way is no folder.
    """
    folder = os.open(top, _FOLDER)
    try:
        for part in parts:
            deeper = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = deeper
        yield folder
    finally:
        os.close(folder)


def _made(top: int, below: int, parts: Sequence[str]) -> int:
    """The folder at the end of `parts` under `top`, made where it is not there, as under `below`; to be closed."""
    here, theirs = os.dup(top), os.dup(below)
    done = ""
    there = True
    try:
        for part in parts:
            done = f"{done}/{part}".lstrip("/")
            deeper = _enter(theirs, part, done) if there else None
            there = deeper is not None
            if deeper is not None:
                os.close(theirs)
                theirs = deeper
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=here)
                if there:
                    _dress(here, part, os.fstat(theirs))
                else:
                    os.chmod(part, _FOLDER_MODES.get(done, 0o755), dir_fd=here)
            entered = _entered(here, part, done)
            os.close(here)
            here = entered
    except BaseException:
        os.close(here)
        raise
    finally:
        os.close(theirs)
    return here


def _entered(parent: int, part: str, path: str) -> int:
    folder = _enter(parent, part, path)
    if folder is None:
        raise IdentityError(f"/{path}: vanished while the board's identity was being laid into it")
    return folder


def _enter(parent: int, part: str, path: str) -> int | None:
    """The folder `part`, None where there is none."""
    try:
        return os.open(part, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        status = os.stat(part, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            raise
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no folder"
        raise IdentityError(
            f"/{path} is {what} in the root, and the board's identity goes there: mend the root, or reset the board's"
        ) from error


def _dress(parent: int, name: str, theirs: os.stat_result) -> None:
    folder = os.open(name, _FOLDER, dir_fd=parent)
    try:
        dress_like(folder, theirs)
    finally:
        os.close(folder)


def _put(folder: int, name: str, file: KeptFile) -> None:
    with suppress(FileNotFoundError):
        os.unlink(_FRESH_NAME, dir_fd=folder)
    descriptor = os.open(_FRESH_NAME, _FRESH, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as out:
        out.write(file.content)
        out.flush()
        os.fchmod(descriptor, file.mode)
    try:
        os.rename(_FRESH_NAME, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        os.unlink(_FRESH_NAME, dir_fd=folder)
        raise IdentityError(
            f"/{file.path} cannot be replaced in the root ({error.strerror}): reset the board's"
        ) from error


def _files(layer: Path) -> list[str]:
    found = []
    for folder, _, names in os.walk(layer):
        found += [str((Path(folder) / name).relative_to(layer)) for name in names]
    return found


def _cover(parts: Sequence[str], upper: Path, tree: Path, cover: Path) -> None:
    *folders, name = parts
    try:
        with _opened(upper, folders) as above:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
    except OSError:
        return  # the board has written nothing there, or no folder is there any more
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return  # it has deleted it
    place = cover
    hidden = False
    for number, part in enumerate(folders):
        place /= part
        with _opened(upper, folders[: number + 1]) as above:
            hidden = hidden or _is_opaque(above)
            if not place.is_dir():
                place.mkdir()
                dress_like(place, os.fstat(above))
    target = place / name
    if hidden or not _copied(tree, folders, name, target):
        os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(0, 0))  # overlayfs.rst: a whiteout


def _is_opaque(folder: int) -> bool:
    for name in _OPAQUE:
        with suppress(OSError):
            if os.getxattr(folder, name) in {b"y", b"x"}:
                return True
    return False


def _copied(tree: Path, folders: Sequence[str], name: str, target: Path) -> bool:
    """Copy the root's own file to `target`; false where the root has none."""
    try:
        with _opened(tree, folders) as theirs:
            status = os.stat(name, dir_fd=theirs, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                target.symlink_to(os.readlink(name, dir_fd=theirs))
                return True
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_KEPT_BYTES:
                return False
            with os.fdopen(os.open(name, _FILE, dir_fd=theirs), "rb") as file:
                content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return False
    target.write_bytes(content)
    dress_like(target, status)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    return True
