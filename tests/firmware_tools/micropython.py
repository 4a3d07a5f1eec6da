"""A real MicroPython for tests: this machine's own, else Debian's package `micropython` with the libraries it wants.

Debian 12 has none, Debian 13 has; so it is fetched from there, by apt, from the mirror that this machine uses anyway,
into the cache folder. Nothing is installed.
"""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from firmware_tools.debian_packages import AptView, PackageError, _alone, _renew, cache_dir

SUITE = "trixie"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
TIMEOUT_S = 60


class DebianSuite(AptView):
    """apt, as if this machine had Debian's `SUITE` and nothing else."""

    def __init__(self, arch, folder):
        super().__init__(arch, folder)
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / "sources.list"
        source.write_text(f"deb [signed-by={KEYS}] {mirror()} {SUITE} main\n")
        self._options += [f"-oDir::Etc::SourceList={source}", "-oDir::Etc::SourceParts=/dev/null"]


def mirror():
    """Where this machine gets Debian from."""
    asked = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(COMPONENT) $(SITE)"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    found = re.search(r"^Debian Debian main (\S+)$", done.stdout, re.MULTILINE)
    if found is None:
        raise PackageError("apt has no Debian among its sources: install micropython by hand, so that it is on PATH")
    return found.group(1)


@cache
def micropython():
    """The command that runs it."""
    own = shutil.which("micropython")
    if own is not None:
        return (own,)
    arch = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    ).stdout.strip()
    with _alone(cache_dir(), f"micropython-{arch}") as folder:
        if not (folder / "usr/bin/micropython").is_file():
            _renew(folder, lambda fresh: _make(arch, fresh))
    loader = next(path for path in sorted((folder / "usr/lib").rglob("ld-linux*.so*")) if path.is_file())
    return (str(loader), "--library-path", str(loader.parent), str(folder / "usr/bin/micropython"))


def _make(arch: str, folder: Path):
    apt = DebianSuite(arch, folder / "apt")
    apt.update()
    for deb in apt.download(apt.with_dependencies(["micropython"]), folder / "deb"):
        subprocess.run(["dpkg-deb", "-x", str(deb), str(folder)], check=True, timeout=TIMEOUT_S)
    shutil.rmtree(folder / "apt")
    shutil.rmtree(folder / "deb")
