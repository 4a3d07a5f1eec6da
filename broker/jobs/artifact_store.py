"""The files that jobs leave behind, in a folder of the broker: `artifacts/<job>/<attempt>-<n>`.

A file's own name is data and stands in the database; nothing that a board says ever becomes a path here. All methods
block: call them on a thread.
"""

import base64
import binascii
import hashlib
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from broker.happenings import SaveArtifact

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 20
MAX_NAME_PARTS = 64
MOST_ATTEMPTS = 10_000


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of an attempt. With a `problem` there is nothing stored, and it says why."""

    job: int
    attempt: int
    n: int
    name: str
    size: int
    sha256: str | None
    problem: str | None = None


def name_problem(name: str) -> str | None:
    """Why a name cannot be that of an artifact, or None: it has to stay inside the folder into which somebody will
    fetch it."""
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):  # control characters
        return "its name holds a control character"
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts:
        return "its name is empty"
    if ".." in parts:
        return "its name leads out of the folder (..)"
    return "its name has too many parts" if len(parts) > MAX_NAME_PARTS else None


@dataclass(slots=True)
class ArtifactStore:
    """`limit_bytes` is for all jobs together."""

    folder: Path
    limit_bytes: int
    _sizes: dict[int, int] = field(default_factory=dict)
    """Bytes by job."""
    _attempts: dict[tuple[int, int], int] = field(default_factory=dict)
    """Bytes of the attempts under way."""
    _bad: dict[tuple[int, int, int], str] = field(default_factory=dict)
    """Files under way that will not be kept."""

    def open(self) -> None:
        """Make the folder and measure what is there.

        Raises:
            OSError: it cannot be used.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in self.folder.iterdir():
            if entry.name.isdigit():
                self._sizes[int(entry.name)] = sum(file.stat().st_size for file in entry.iterdir())

    def take(self, item: SaveArtifact) -> Artifact | None:
        """Store a piece; gives the file's record when that was its last. A piece that came already is passed over.

        Pieces are written in their order. What cannot be stored, or does not fit, becomes the record's problem and
        never an error: the job goes on.
        """
        report, key = item.report, (item.job, item.attempt, item.report.n)
        done = self._path(item.job, item.attempt, report.n)
        last = report.sha256 is not None or report.problem is not None
        if done.exists():
            return None
        part = done.with_name(done.name + ".part")
        if key not in self._bad:
            problem = report.problem or self._write(part, item)
            if problem is not None:
                self._bad[key] = problem
                self._drop(part)
        if not last:
            return None
        problem = self._bad.pop(key, None)
        size = part.stat().st_size if part.exists() else report.offset
        if problem is None:
            problem = self._finish(part, done, report.sha256 or "")
        if problem is not None:
            self._drop(part)
            return Artifact(item.job, item.attempt, report.n, report.name, size, None, problem)
        return Artifact(item.job, item.attempt, report.n, report.name, size, report.sha256)

    def _path(self, job: int, attempt: int, n: int) -> Path:
        return self.folder / str(job) / f"{attempt}-{n}"

    def _write(self, part: Path, item: SaveArtifact) -> str | None:  # noqa: PLR0911  # a ladder
        """Append the piece; returns why that cannot be."""
        report = item.report
        if (problem := name_problem(report.name)) is not None:
            return problem
        try:
            data = base64.b64decode(report.data, validate=True)
        except (binascii.Error, ValueError):
            return "a piece of it is no base64"
        try:
            have = part.stat().st_size if part.exists() else 0
            if report.offset + len(data) <= have and report.offset < have:
                return None
            if report.offset != have:
                return f"the piece at {have} is missing"
            if self._of_attempt(item) + len(data) > item.max_bytes:
                return f"with it the files would be more than the job's {item.max_bytes} bytes"
            part.parent.mkdir(mode=0o700, exist_ok=True)
            with part.open("ab") as file:
                file.write(data)
        except OSError as error:
            log.error("%s: cannot be written: %s", part, error.strerror)  # noqa: TRY400  # one line says it
            return f"the broker could not store it: {error.strerror}"
        self._count(part, len(data))
        return None

    def _of_attempt(self, item: SaveArtifact) -> int:
        """Its bytes so far; measured once, also for one that began before our restart."""
        key = (item.job, item.attempt)
        known = self._attempts.get(key)
        if known is None:
            if len(self._attempts) >= MOST_ATTEMPTS:
                self._attempts.clear()
            folder = self.folder / str(item.job)
            known = sum(file.stat().st_size for file in folder.glob(f"{item.attempt}-*"))
            self._attempts[key] = known
        return known

    def _count(self, file: Path, size: int) -> None:
        """A file has grown, or with a negative size is gone."""
        job, attempt = int(file.parent.name), int(file.name.partition("-")[0])
        self._sizes[job] = self._sizes.get(job, 0) + size
        if (job, attempt) in self._attempts:
            self._attempts[(job, attempt)] += size

    def _finish(self, part: Path, done: Path, sha256: str) -> str | None:
        try:
            if not part.exists():  # an empty file
                part.parent.mkdir(mode=0o700, exist_ok=True)
                part.touch(mode=0o600)
            digest = hashlib.sha256()
            with part.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    digest.update(piece)
            if digest.hexdigest() != sha256:
                return "it changed while it was sent: its checksum is not that of what came"
            part.rename(done)
        except OSError as error:
            return f"the broker could not store it: {error.strerror}"
        return None

    def _drop(self, part: Path) -> None:
        try:
            size = part.stat().st_size
            part.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            log.error("%s: cannot be removed: %s", part, error.strerror)  # noqa: TRY400  # one line says it
            return
        self._count(part, -size)

    def read(self, artifact: Artifact, offset: int, size: int) -> bytes:
        """A piece of a stored file.

        Raises:
            OSError: it is not there any more.
        """
        with self._path(artifact.job, artifact.attempt, artifact.n).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def make_room(self) -> list[int]:
        """Remove the files of the oldest jobs until the rest is within the limit; returns those jobs."""
        removed = []
        total = sum(self._sizes.values())
        for job in sorted(self._sizes)[:-1]:
            if total <= self.limit_bytes:
                break
            total -= self._sizes[job]
            self.forget(job)
            removed.append(job)
        return removed

    @property
    def full(self) -> bool:
        """Whether `make_room` has something to do."""
        return sum(self._sizes.values()) > self.limit_bytes

    @property
    def jobs(self) -> list[int]:
        """Jobs with files."""
        return sorted(self._sizes)

    def forget(self, job: int) -> None:
        """Remove all files of a job."""
        shutil.rmtree(self.folder / str(job), ignore_errors=True)
        self._sizes.pop(job, None)
