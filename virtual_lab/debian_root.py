"""The Debian root that virtual arm64 boards run from: `boardhand image build` of a recipe, kept below `cache_dir()`.

`python -m virtual_lab.debian_root` makes it, so that no test waits for a download.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from firmware_tools import debian_packages
from firmware_tools import image as image_room
from firmware_tools.debian_packages import PackageError, cache_dir
from virtual_lab.child_process import child_environment
from virtual_lab.namespace import LabError

ARCH = "arm64"
CLIENT_FILE = Path(__file__).resolve().parent.parent / "board" / "client.py"
BUILD_TIMEOUT_S = 900.0
RECIPE = """\
name = "debian"
arch = "arm64"
outputs = ["tar"]
# On emulated boards each file costs time: these have no use for several thousand.
leave_out = [
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/bug",
    "usr/share/zsh", "usr/share/bash-completion", "usr/share/perl5", "usr/share/common-licenses", "usr/share/i18n",
    "usr/share/debconf", "usr/share/zoneinfo", "usr/share/keymaps", "etc/init.d", "var/lib/dpkg/info",
]

# As images for disks have it. A board that runs from the network has no such disk, and is told `fstab=no`.
[[file]]
path = "/etc/fstab"
text = \"\"\"
PARTUUID=5e3da3da-02 / ext4 defaults,noatime 0 1
PARTUUID=5e3da3da-01 /boot/firmware vfat defaults 0 2
\"\"\"
"""
Progress = Callable[[str, int, int | None], None]


class DebianRootError(LabError):
    """The root cannot be made; the message says why and what to do."""


def get(cache: Path, progress: Progress) -> Path:
    """The root's tar. The first time takes half a minute and 40 MB of download.

    Raises:
        DebianRootError: `boardhand image build` did not make it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"debian-root-{ARCH}-{_recipe()}.tar"
    with (cache / f".debian-root-{ARCH}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_file():
            progress(f"build the Debian root for {ARCH}", 0, None)
            for old in cache.glob(f"debian-root-{ARCH}-*.tar"):
                old.unlink()
            _build(cache, target)
    return target


def _recipe() -> str:
    """Changes with everything of ours that goes into the root; what is of Debian's is looked for by `--update` only."""
    digest = hashlib.sha256(RECIPE.encode())
    own = [CLIENT_FILE, *sorted(Path(image_room.__file__).parent.glob("*.py"))]
    for path in own:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _build(cache: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache, prefix=".debian-root-") as folder:
        recipe = Path(folder) / "image.toml"
        recipe.write_text(RECIPE, encoding="utf-8")
        command = [sys.executable, "-m", "cli", "image", "build", str(recipe), f"{folder}/out", "--json"]
        environment = {**child_environment(), "BOARDHAND_CACHE": str(cache)}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            raise DebianRootError(f"the Debian root took over {BUILD_TIMEOUT_S:g} s: is the network slow?") from None
        if done.returncode:
            raise DebianRootError(f"the Debian root for {ARCH} cannot be made: {done.stderr.strip()}")
        built = json.loads(done.stdout.splitlines()[-1])
        shutil.move(built["files"][0]["path"], target)


def main() -> int:
    """Entry point."""
    told: set[str] = set()

    def progress(text: str, _done: int, total: int | None) -> None:
        if text not in told:
            told.add(text)
            size = f" ({total / 1e6:.0f} MB)" if total is not None and total > 1_000_000 else ""
            sys.stdout.write(f"root for boards: {text}{size}\n")
            sys.stdout.flush()

    try:
        get(cache_dir(), progress)
        debian_packages.fetch_kernel(ARCH, cache_dir(), progress)
        debian_packages.fetch_busybox(ARCH, cache_dir(), progress)
    except (DebianRootError, PackageError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
