"""apt, as if this machine had another architecture and nothing installed: a private view with lists of its own.

Nothing is installed and dpkg is not told. apt checks what it fetches: lists by their signatures, packages by the lists.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and how much there is (None when that is unknown)."""

APT_QUICK_TIMEOUT_S = 120  # questions to the package cache; the first one builds it
APT_NETWORK_TIMEOUT_S = 900  # 80 MB over 1 Mbit/s
POLL_S = 0.2
MISSING_NAMED = 5  # of packages that are not there; the rest is counted


class PackageError(Exception):
    """A package could not be had. The message says which and what to do."""


def say_nothing(_text: str, _done: int, _total: int | None) -> None:
    """A `Progress` for those who do not care."""


class AptView:
    """apt, as if this machine had the architecture `arch` and nothing installed.

    `sources` is text as in sources.list(5), deb822 style, in place of this machine's own sources.
    """

    def __init__(self, arch: str, folder: Path, progress: Progress = say_nothing, sources: str | None = None) -> None:
        self.arch = arch
        self._folder = folder
        self._progress = progress
        self._options = [
            f"-oAPT::Architecture={arch}",
            f"-oAPT::Architectures={arch}",
            f"-oDir::State::Lists={folder / 'lists'}",
            f"-oDir::State::status={folder / 'status'}",
            f"-oDir::Cache={folder / 'cache'}",
            "-oDebug::NoLocking=1",
            "-oAPT::Get::Assume-Yes=1",
            "-oAcquire::Languages=none",
            "-oAcquire::Retries=2",
        ]
        self._sources = sources
        if sources is not None:
            self._options += [f"-oDir::Etc::SourceList={folder / 'view.sources'}", "-oDir::Etc::SourceParts=/dev/null"]

    def update(self, *, strict: bool = False) -> None:
        """Fetches the package lists. A source that fails is no error by itself: what is then missing will be.

        Raises:
            PackageError: `strict`, and a source does not answer, or is not signed by a key that apt trusts.
        """
        for name in ("lists/partial", "cache/archives/partial"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").touch()
        if self._sources is not None:
            (self._folder / "view.sources").write_text(self._sources, encoding="utf-8")
        self._progress(f"package lists for {self.arch}", 0, None)
        errors = ["-oAPT::Update::Error-Mode=any"] if strict else []
        self._run("apt-get", "update", *errors, timeout_s=APT_NETWORK_TIMEOUT_S, check=strict)

    def fetch_with_dependencies(self, packages: Sequence[str]) -> list[Path]:
        """Downloads `packages` and all that they need, recommendations left out, into this view's cache. A download
        that was cut goes on where it was; apt checks every package against the signed lists.

        Raises:
            PackageError: the sources lack one, or one does not arrive whole.
        """
        words = ("install", "--no-install-recommends", *packages)
        # It lists what it would fetch: to hear of all, it must not look where some of it already is.
        nowhere = self._folder / "nowhere"
        (nowhere / "partial").mkdir(parents=True, exist_ok=True)
        simulation = self._ran("apt-get", (f"-oDir::Cache::Archives={nowhere}", *words, "--print-uris"))
        if simulation.returncode:
            raise PackageError(self._why_not(simulation.stderr))
        listing = simulation.stdout
        wanted = {m.group(1): int(m.group(2)) for m in re.finditer(r"^'[^']*' (\S+\.deb) (\d+)", listing, re.MULTILINE)}
        archives = self._folder / "cache/archives"
        self._download([*words, "--download-only"], archives, sum(wanted.values()), packages)
        return sorted(archives / name for name in wanted)

    def _download(self, words: Sequence[str], into: Path, total: int, packages: Sequence[str]) -> None:
        """Runs apt-get in `into` and tells how many bytes of packages lie there."""
        label = f"download {packages[0]}"
        log = into / "apt.log"
        with log.open("wb") as out, _spawn(["apt-get", *self._options, *words], out, into) as child:
            until = time.monotonic() + APT_NETWORK_TIMEOUT_S
            while child.poll() is None:
                if time.monotonic() > until:
                    raise PackageError(f"downloading {', '.join(packages)} took over {APT_NETWORK_TIMEOUT_S} s")
                self._progress(label, min(total, _deb_bytes(into)), total)
                time.sleep(POLL_S)
        if child.returncode:
            said = _apt_complaint(log.read_text(errors="replace"))
            raise PackageError(f"apt-get {words[0]} {' '.join(packages)}: {said}")
        self._progress(label, total, total)

    def fields(self, package: str) -> dict[str, str] | None:
        """The control fields of a package's newest version, or None when the sources have no such package."""
        text = self._run("apt-cache", "show", "--no-all-versions", package, check=False)
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", text.split("\n\n")[0], re.MULTILINE))
        return fields if fields.get("Package") == package else None

    def depends(self, package: str) -> list[str]:
        """The names of the packages that `package` depends on; of alternatives the first.

        Raises:
            PackageError: the sources have no such package.
        """
        fields = self.fields(package)
        if fields is None:
            raise self.missing(package)
        line = ", ".join(fields[key] for key in ("Pre-Depends", "Depends") if key in fields)
        return [match.group(1) for part in line.split(",") if (match := re.match(r"\s*([a-z0-9][a-z0-9+.-]*)", part))]

    def with_dependencies(self, packages: Sequence[str]) -> list[str]:
        """`packages` and all that they need, recommendations left out, as apt would install them on an empty system.

        Raises:
            PackageError: the sources lack one.
        """
        listing = self._run("apt-get", "install", "--no-install-recommends", "--print-uris", *packages)
        return sorted(set(re.findall(r"^'[^']*' ([a-z0-9][a-z0-9+.-]*)_", listing, re.MULTILINE)))

    def download(self, packages: Sequence[str], into: Path) -> list[Path]:
        """Downloads packages; apt checks them against the signed lists.

        Raises:
            PackageError: one is not there or does not arrive whole.
        """
        into.mkdir(parents=True, exist_ok=True)
        listing = self._run("apt-get", "download", "--print-uris", *packages)
        expected = [(m.group(1), int(m.group(2))) for m in re.finditer(r"^'[^']*' (\S+) (\d+)", listing, re.MULTILINE)]
        self._download(["download", *packages], into, sum(size for _, size in expected), packages)
        return sorted(into.glob("*.deb"))

    def missing(self, package: str) -> PackageError:
        """The error that says where to get a package that the sources lack."""
        return PackageError(
            f"apt's sources of this machine have no package {package} for {self.arch}. Add a source that has this "
            f"architecture (Ubuntu keeps arm64 on another server than amd64), with [arch={self.arch}], and try again"
        )

    def _run(self, program: str, *arguments: str, timeout_s: float = APT_QUICK_TIMEOUT_S, check: bool = True) -> str:
        done = self._ran(program, arguments, timeout_s)
        if check and done.returncode:
            raise PackageError(f"{program} {' '.join(arguments)}: {_apt_complaint(done.stderr)}")
        return done.stdout

    def _ran(
        self, program: str, arguments: Sequence[str], timeout_s: float = APT_QUICK_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        command = [program, *self._options, *arguments]
        try:
            return subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, check=False, env=_apt_environment()
            )
        except FileNotFoundError:
            raise PackageError(f"{program} is not there: packages are fetched on Debian and its descendants") from None
        except subprocess.TimeoutExpired:
            raise PackageError(f"{program} {' '.join(arguments)} took over {timeout_s:g} s") from None

    def _why_not(self, said: str) -> str:
        """The many lines of apt about packages that it cannot have, in one."""
        missing = re.findall(
            r"^E: (?:Unable to locate package|Package '?)\s*([a-z0-9][a-z0-9+.-]*)", said, re.MULTILINE
        )
        if not missing:
            return f"these packages do not go together: {_apt_complaint(said)}"
        more = f" and {len(missing) - MISSING_NAMED} more" if len(missing) > MISSING_NAMED else ""
        return (
            f"there is no package {', '.join(missing[:MISSING_NAMED])}{more} for {self.arch} in these sources: a name "
            "is misspelt, or a component is missing, or they do not have this architecture"
        )


def _apt_environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


@contextmanager
def _spawn(command: list[str], out: object, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=cwd, env=_apt_environment())  # type: ignore[call-overload]
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def _apt_complaint(text: str) -> str:
    errors = [line[2:].strip() for line in text.splitlines() if line.startswith("E:")]
    return "; ".join(errors) or text.strip()[-300:] or "it failed without a word"


def _deb_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.deb") if path.exists())
