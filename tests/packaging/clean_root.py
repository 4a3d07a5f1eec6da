"""A clean Debian root, kept below `cache_dir()`: `python -m tests.packaging.clean_root` makes it before the tests.

The same release as this machine's, because the package is built for that. Of boardhand's it holds what the package
depends on, so that installing it needs no network, an MQTT server, and what every Debian has (iproute2).
"""

import fcntl
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from firmware_tools.debian_packages import cache_dir
from virtual_lab.usb_guest_image import apt_sources, host_release, network_settings

PACKAGES = ("python3", "systemd", "mosquitto", "iproute2")
TIMEOUT_S = 600.0


def clean_root(cache: Path) -> Path:
    """The root's tar; made the first time (a minute, 60 MB of download)."""
    cache.mkdir(parents=True, exist_ok=True)
    release = host_release()
    target = cache / f"deb-root-{hashlib.sha256(repr((release, PACKAGES)).encode()).hexdigest()[:16]}.tar"
    with (cache / ".deb-root.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_file():
            for old in cache.glob("deb-root-*.tar"):
                old.unlink()
            _make(release, target)
    return target


def _make(release: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".deb-root-") as folder:
        settings, fresh = Path(folder, "apt.conf"), Path(folder, "root.tar")
        settings.touch(0o600)
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, timeout=30, check=True).stdout
        settings.write_text(network_settings(dump))
        command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", f"--aptopt={settings}"]
        subprocess.run(
            [*command, release, str(fresh), *map(str, apt_sources())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=True,
        )
        fresh.replace(target)


if __name__ == "__main__":
    sys.stderr.write("clean Debian root: making it, or taking that of the last time\n")
    clean_root(cache_dir())
