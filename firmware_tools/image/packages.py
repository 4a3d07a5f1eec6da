"""Which packages an image gets and from where. apt does the work: it resolves, downloads (going on where it was cut),
checks Release files by their signatures and packages by the Release files' checksums. It is told never to do without.

What was resolved is written down, and holds until somebody asks for newer packages: the same recipe gives the same
image tomorrow, and without network.
"""

import fcntl
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from firmware_tools.debian_packages import AptView, PackageError, Progress
from firmware_tools.image import apt_sources
from firmware_tools.image.recipe import Recipe

_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """Packages' files, sorted by name, with their SHA-256."""

    files: tuple[Path, ...]
    sha256: dict[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """Where packages of a recipe are kept, and the keys that its mirror is checked by, where they are not Debian's."""

    folder: Path
    keyring: Path | None

    def sources(self, recipe: Recipe) -> str | None:
        """What apt is told of where packages come from: see `apt_sources.text_of`.

        Raises:
            PackageError: this machine has no sources of the suite, or no keys.
        """
        return apt_sources.text_of(recipe, apt_sources.own(), self.keyring)


def place(recipe: Recipe, cache: Path, keyring: Path | None = None) -> Place:
    """The place of a recipe: recipes with the same sources share one, and so their downloads."""
    words = [recipe.arch, recipe.suite, recipe.mirror, recipe.security_mirror, recipe.snapshot, keyring]
    return Place(cache / f"image-{recipe.arch}-{_short(*words, *recipe.components)}", keyring)


def _short(*words: object) -> str:
    return hashlib.sha256("\n".join(str(word) for word in words).encode()).hexdigest()[:16]


def fetch(recipe: Recipe, where: Place, progress: Progress, *, update: bool = False) -> Fetched:
    """The packages, from the cache where they are there and whole.

    Raises:
        PackageError: one cannot be had, or a source cannot be trusted.
    """
    where.folder.mkdir(parents=True, exist_ok=True)
    with (where.folder / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _fetch(recipe, where, progress, update=update)


def _fetch(recipe: Recipe, where: Place, progress: Progress, *, update: bool) -> Fetched:
    record = where.folder / f"resolved-{_short(*recipe.all_packages)}.json"
    if not update and (known := _recorded(record, where.folder / "cache/archives", progress)) is not None:
        return known
    sources = where.sources(recipe)
    apt = AptView(recipe.arch, where.folder, progress, sources)
    # Of this machine's own sources any may be dead; what was chosen has to answer, security updates with it.
    apt.update(strict=sources is not None)
    files = apt.fetch_with_dependencies(recipe.all_packages)
    if not files:
        raise PackageError(f"apt knows of nothing to fetch for {recipe.arch}")
    sums = {path.name: _sha256(path) for path in files}
    fresh = record.with_suffix(".new")
    fresh.write_text(json.dumps(sums, indent=1), encoding="utf-8")
    fresh.replace(record)
    return Fetched(tuple(files), sums)


def _recorded(record: Path, archives: Path, progress: Progress) -> Fetched | None:
    """What was resolved before, if every file of it is there as it was."""
    try:
        sums: dict[str, str] = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # never resolved, or cut while it was written
    files = []
    for number, (name, digest) in enumerate(sorted(sums.items())):
        progress("check packages", number, len(sums))
        path = archives / name
        if not path.is_file() or _sha256(path) != digest:
            path.unlink(missing_ok=True)  # apt takes a file of the right size for the right one
            return None
        files.append(path)
    progress("check packages", len(sums), len(sums))
    return Fetched(tuple(files), sums)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_COPY_BYTES):
            digest.update(piece)
    return digest.hexdigest()
