"""What is in the Debian root of `debian_root`: which packages, and what their scripts would have written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

PACKAGES = (
    "base-files", "bash", "coreutils", "dash", "diffutils", "findutils", "grep", "gzip", "hostname", "iproute2", "kmod",
    "libpython3-stdlib", "mount", "openssh-server", "procps", "python3-minimal", "sed", "systemd", "systemd-sysv",
    "tar", "usr-is-merged", "util-linux",
)  # fmt: skip
LEFT_OUT = re.compile(
    # Nobody reads manuals on these boards, and each file is one more to import, to check and to delete.
    r"(usr/share/(doc|man|locale|info|lintian|bug|zsh|bash-completion|perl5|common-licenses|i18n|debconf|zoneinfo)"
    r"|usr/lib/[^/]+/(perl-base|gconv)|usr/share/perl5|usr/share/keymaps|etc/init\.d|etc/pam\.d)(/|$)"
)
CLIENT_UNIT = """\
[Unit]
Description=boardhand's client

[Service]
ExecStart=/usr/bin/python3 /usr/lib/boardhand/client.py
Restart=always
RestartSec=2
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
"""
# The host keys are laid in with the board's identity: without one of them sshd does not start, as it should be.
SSHD_UNIT = """\
[Unit]
Description=OpenSSH

[Service]
ExecStart=/usr/sbin/sshd -D
RuntimeDirectory=sshd
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""
SSHD_CONFIG = """\
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""
# As images for disks have it. A board that runs from the network has no such disk, and is told `fstab=no`.
FSTAB = """\
PARTUUID=5e3da3da-02 / ext4 defaults,noatime 0 1
PARTUUID=5e3da3da-01 /boot/firmware vfat defaults 0 2
"""
USERS = """\
root:*:0:0:root:/root:/bin/bash
daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin
sshd:*:100:65534::/run/sshd:/usr/sbin/nologin
systemd-network:*:998:998::/:/usr/sbin/nologin
nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
GROUPS = """\
root:*:0:
daemon:*:1:
adm:*:4:
tty:*:5:
disk:*:6:
kmem:*:15:
utmp:*:43:
systemd-journal:*:999:
systemd-network:*:998:
nogroup:*:65534:
"""
_UNITS = "usr/lib/systemd/system"
_WANTS = "etc/systemd/system/multi-user.target.wants"
LINKS = MappingProxyType(
    {
        "usr/bin/sh": "dash",
        "etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target",
        f"{_WANTS}/boardhand-client.service": "/lib/systemd/system/boardhand-client.service",
        f"{_WANTS}/boardhand-ssh.service": "/lib/systemd/system/boardhand-ssh.service",
        "var/run": "/run",
        # Without udev nobody tells systemd of the serial line, and it would wait for it.
        "etc/systemd/system/serial-getty@.service": "/dev/null",
    }
)
"""Symbolic links. `/bin` and its like, which make the root a usr-merged one, are not among them."""


@dataclass(frozen=True, slots=True)
class RootFile:
    """A file of root's. `path` has no `/` before it."""

    path: str
    content: bytes
    mode: int = 0o644


def files(client: bytes) -> Sequence[RootFile]:
    """What the packages' scripts would have made, and `client`, the board's client, as a service."""
    texts = {
        "etc/passwd": USERS,
        "etc/group": GROUPS,
        "etc/fstab": FSTAB,
        "etc/ssh/sshd_config": SSHD_CONFIG,
        f"{_UNITS}/boardhand-client.service": CLIENT_UNIT,
        f"{_UNITS}/boardhand-ssh.service": SSHD_UNIT,
    }
    made = [RootFile(path, text.encode()) for path, text in texts.items()]
    return [*made, RootFile("usr/lib/boardhand/client.py", client, 0o755)]


def folders() -> Sequence[str]:
    """Folders, parents first; the packages bring the rest."""
    places = [*(file.path for file in files(b"")), *LINKS, "usr/lib/x"]
    places += [f"{name}/x" for name in ("dev", "home", "mnt", "opt", "proc", "run", "srv", "sys")]
    found: dict[str, None] = {}
    for place in places:
        parts = place.split("/")[:-1]
        found.update(dict.fromkeys("/".join(parts[: count + 1]) for count in range(len(parts))))
    return list(found)
