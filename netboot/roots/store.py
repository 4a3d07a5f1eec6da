"""The folder that holds all roots, and the rule that a root is whole or not there.

    roots/NAME/root.json, manifest.gz, tree/     a root
    incoming/NAME.XXXX/                          an import under way, held by a lock; unheld it is a leftover
    views/BOARD/                                 see `views`
    trash/                                       renamed away, deleted later

A root appears by one rename. All of it lies on one file system, so that a rename is all it takes.
"""

import ctypes
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from netboot.roots import manifest
from netboot.roots.errors import (
    DamagedRootError,
    NoSuchRootError,
    RootError,
    RootExistsError,
    RootInUseError,
    StoreError,
)
from wire.names import is_id

FORMAT = 1
DELETE_TIMEOUT_S = 3600.0
"""A root of a million files on a slow disk takes minutes."""
RESERVE_BYTES = 64 << 20
RESERVE_PART = 50
"""Of the file system: on a small one, a smaller reserve."""
_UNUSABLE = frozenset(":,\\\n")  # mount(8), overlay: what separates the folders of lowerdir=
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class RootInfo:
    """A root as its record says. `sha256` is its manifest's, `size_bytes` the sum of its files, `lost` what an import
    without rights could not keep, by what it is."""

    name: str
    sha256: str
    size_bytes: int
    files: int
    source: str
    imported_at: str
    lost: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A root under construction."""

    name: str
    folder: Path
    lock: int
    """A descriptor. The place counts as abandoned when no process holds it any more."""

    @property
    def tree(self) -> Path:
        """Where its files go."""
        return self.folder / "tree"


class RootStore:
    """The store in `folder`, which is made if need be.

    Raises:
        StoreError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        if _UNUSABLE & set(str(self.folder)):
            raise StoreError(f"{self.folder}: overlays cannot take a path with ':', ',' or '\\' in it; choose another")
        try:
            for name in ("roots", "incoming", "views", "trash"):
                (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be used as a store of roots: {error.strerror}") from error

    # --- looking ---

    def names(self) -> list[str]:
        """The roots that are there."""
        return sorted(entry.name for entry in (self.folder / "roots").iterdir() if is_id(entry.name))

    def info(self, name: str) -> RootInfo:
        """A root's record.

        Raises:
            NoSuchRootError: there is none of that name.
            DamagedRootError: its record cannot be read.
        """
        path = self._place(name) / "root.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.pop("format") != FORMAT:
                raise DamagedRootError(f"root {name}: made by another version of boardhand; import it anew")
            return RootInfo(name=name, **record)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedRootError(f"root {name}: its record cannot be read ({error}); import it anew") from error

    def tree(self, name: str) -> Path:
        """The folder with a root's files, not to be changed.

        Raises:
            NoSuchRootError: there is none of that name.
        """
        return self._place(name) / "tree"

    def _place(self, name: str) -> Path:
        place = self.folder / "roots" / name
        if not is_id(name) or not place.is_dir():
            known = ", ".join(self.names()) or "none"
            raise NoSuchRootError(f"there is no root {name!r}; known are: {known}")
        return place

    def users(self, name: str) -> list[str]:
        """The boards that have a view of a root."""
        found = []
        for record in sorted((self.folder / "views").glob("*/view.json")):
            try:
                uses = json.loads(record.read_text(encoding="utf-8")).get("root") == name
            except (OSError, ValueError, AttributeError):
                uses = True  # a record that nobody can read may stand for a board that runs
            if uses:
                found.append(record.parent.name)
        return found

    def verify(self, name: str, moved: manifest.Moved = lambda _: None) -> list[str]:
        """Read a whole root and compare it with what was imported. What differs, as sentences; none is good.

        Raises:
            NoSuchRootError, DamagedRootError: as `info`; also where a file cannot be read.
        """
        info, place = self.info(name), self._place(name)
        with tempfile.TemporaryFile(dir=self.folder / "incoming") as rows:  # without a name: nothing to sweep
            try:
                digest, _, _ = manifest.write(rows, manifest.lines(place / "tree", {}, moved))
            except OSError as error:
                raise DamagedRootError(f"root {name}: {error.filename}: {error.strerror}") from error
            if digest == info.sha256:
                return []
            rows.seek(0)
            with (place / "manifest.gz").open("rb") as then:
                found = manifest.differences(manifest.read(then, name), manifest.read(rows, name))
        return found or ["the manifest itself: it is not the one that was imported"]

    # --- changing ---

    @contextmanager
    def incoming(self, name: str) -> Iterator[Incoming]:
        """A place for a new root. What is in it when the block ends is thrown away, unless `commit` took it.

        Raises:
            RootError: `name` is no name.
            RootExistsError: there is a root of that name.
            StoreError: the place cannot be made.
        """
        if not is_id(name):
            raise RootError(f"{name!r} is no name of a root: use a-z, 0-9 and '-', at most 63 characters")
        self._must_be_new(name)
        self.sweep()
        try:
            folder, lock = self._place_for(name)
        except OSError as error:
            raise StoreError(f"{self.folder}: no import can be begun: {error.strerror}") from error
        try:
            yield Incoming(name, folder, lock)
        finally:
            os.close(lock)
            self._discard(folder)

    def _place_for(self, name: str) -> tuple[Path, int]:
        # While the place is made, nobody sweeps: a place without a held lock is always a leftover.
        with self._alone():
            folder = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=self.folder / "incoming"))
            (folder / "tree").mkdir(mode=0o755)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            return folder, lock

    @contextmanager
    def _alone(self) -> Iterator[None]:
        folder = os.open(self.folder / "incoming", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def commit(self, made: Incoming, known: manifest.Known, *, source: str, lost: dict[str, int]) -> RootInfo:
        """Make what was imported a root: its manifest is written, all of it is on the disk, then it is renamed.

        Raises:
            RootExistsError: meanwhile another import made it.
            OSError: the manifest cannot be written, as when the store is full.
        """
        # The disk writes while we read names and modes again, which are in memory.
        with ThreadPoolExecutor(1, thread_name_prefix="sync a root") as early:
            synced = early.submit(_sync, made.folder)
            with (made.folder / "manifest.gz").open("xb") as rows:
                digest, files, size = manifest.write(rows, manifest.lines(made.tree, known))
            synced.result()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        info = RootInfo(made.name, digest, size, files, source, now, lost)
        record = {"format": FORMAT, **{key: value for key, value in asdict(info).items() if key != "name"}}
        (made.folder / "root.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        _sync(made.folder)
        place = self.folder / "roots" / made.name
        try:
            made.folder.rename(place)
        except OSError as error:
            self._must_be_new(made.name)
            raise StoreError(f"root {made.name}: cannot be put in its place: {error.strerror}") from error
        _sync_folder(place.parent)
        (place / "lock").unlink()
        return info

    def remove(self, name: str) -> None:
        """Remove a root that no board uses. It is gone at once; its space is freed by `empty_trash`.

        Raises:
            NoSuchRootError: there is none of that name.
            RootInUseError: a board has a view of it.
        """
        place = self._place(name)
        users = self.users(name)
        if users:
            raise RootInUseError(
                f"root {name} is in use by {', '.join(users)}: give them another root and boot that first"
            )
        self.throw_away(place)

    def throw_away(self, folder: Path) -> None:
        """Rename a folder of the store into the trash: a matter of microseconds, whatever is in it."""
        folder.rename(Path(tempfile.mkdtemp(dir=self.folder / "trash")) / "it")

    def empty_trash(self) -> None:
        """Delete what was thrown away. Takes as long as it takes: not for the event loop.

        Raises:
            StoreError: something of it cannot be deleted.
        """
        _delete(list((self.folder / "trash").iterdir()))

    def sweep(self) -> None:
        """Delete what imports have left behind that were killed.

        Raises:
            StoreError: it cannot be deleted.
        """
        left: list[Path] = []
        try:
            with self._alone():
                left = [folder for folder in (self.folder / "incoming").iterdir() if _is_abandoned(folder)]
                for folder in left:  # in its name no more: another sweep must not meet it while we delete
                    self.throw_away(folder)
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be swept: {error.strerror}") from error
        if left:
            self.empty_trash()

    def free_bytes(self) -> int:
        """Room for another root. A little of the disk is left free: the agent's own state may lie there, too."""
        usage = shutil.disk_usage(self.folder)
        return max(0, usage.free - min(RESERVE_BYTES, usage.total // RESERVE_PART))

    def removable(self) -> list[RootInfo]:
        """The roots that no board uses, the largest first."""
        found = []
        for name in self.names():
            with suppress(DamagedRootError, NoSuchRootError):
                found.append(self.info(name))
        return sorted((info for info in found if not self.users(info.name)), key=lambda info: -info.size_bytes)

    def _must_be_new(self, name: str) -> None:
        if (self.folder / "roots" / name).exists():
            raise RootExistsError(
                f"there is a root {name!r} already, and roots are never changed: "
                f"take another name, or first 'boardhand root remove {name}'"
            )

    def _discard(self, folder: Path) -> None:
        if folder.exists():
            _delete([folder])


def _is_abandoned(folder: Path) -> bool:
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _delete(folders: list[Path]) -> None:
    # rm: a process of its own deletes while ours goes on, and no link makes it leave these folders.
    if not folders:
        return
    done = _run("rm", "-rf", "--one-file-system", "--", *folders)
    if done.returncode and os.geteuid():
        # Folders of a root may be closed to their owner, and only root passes over that. X: files stay as they are.
        _run("chmod", "-R", "u+rwX", "--", *folders)
        done = _run("rm", "-rf", "--one-file-system", "--", *folders)
    if done.returncode:
        raise StoreError(f"{folders[0].parent}: cannot be emptied: {done.stderr.strip()[-300:]}")


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DELETE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreError(f"{command[0]}: {error}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    """Have everything of this file system on the disk: a root must not lose its last files when power goes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


Progress = Callable[[str, int, int | None], None]
"""Takes what is done, how many octets of it are done, and how many there are (None when that is unknown)."""
