"""Users and groups of a root: base-passwd's, systemd's sysusers.d (sysusers.d(5)), a few packages', the recipe's.

Numbers are given in sorted order, so that the same packages get the same numbers.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from firmware_tools.image.tree import Tree

NOLOGIN = "/usr/sbin/nologin"
# adduser's and systemd's ranges for daemons; systemd counts down from the end.
_SYSTEM_TOP, _SYSTEM_BOTTOM, _FIRST_USER = 999, 100, 1000
BY_SCRIPT = {
    # What packages make by adduser in a script, as Debian 12's; newer ones ship sysusers.d.
    "openssh-server": ("sshd", "/run/sshd", 65534),
    "dbus": ("messagebus", "/nonexistent", None),
    "avahi-daemon": ("avahi", "/run/avahi-daemon", None),
}
GROUPS_BY_SCRIPT = {
    "systemd": ("systemd-journal", "kvm", "render"),
    "udev": ("input", "sgx", "kvm", "render"),
    "openssh-client": ("_ssh",),
}
FALLBACK_USERS = """\
root:*:0:0:root:/root:/bin/bash
daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin
nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
FALLBACK_GROUPS = """\
root:*:0:
daemon:*:1:
adm:*:4:
tty:*:5:
disk:*:6:
kmem:*:15:
shadow:*:42:
utmp:*:43:
nogroup:*:65534:
"""
# Field 3 of shadow(5); 0 would mean that the password has to be changed at the first login.
_CHANGED_DAYS_AFTER_1970 = 1


class AccountError(ValueError):
    """A user or group cannot be had. The message names it."""


@dataclass(slots=True)
class _User:
    uid: int
    gid: int
    gecos: str
    home: str
    shell: str
    password: str = "*"  # noqa: S105  # a hash that no password has


@dataclass(slots=True)
class Accounts:
    """Who is known in the root."""

    users: dict[str, _User] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, tree: Tree) -> "Accounts":
        """Base-passwd's, as its master files in the tree have them, or the few that nothing starts without."""
        accounts = cls()
        passwd = tree.text("usr/share/base-passwd/passwd.master") or FALLBACK_USERS
        group = tree.text("usr/share/base-passwd/group.master") or FALLBACK_GROUPS
        for line in passwd.splitlines():
            name, _, uid, gid, gecos, home, shell = line.split(":")
            accounts.users[name] = _User(int(uid), int(gid), gecos, home, shell)
        for line in group.splitlines():
            name, _, gid, _ = line.split(":")
            accounts.groups[name] = int(gid)
        return accounts

    def free(self, top: int = _SYSTEM_TOP, bottom: int = _SYSTEM_BOTTOM) -> int:
        """The highest number of this range that no user and no group has.

        Raises:
            AccountError: there is none.
        """
        taken = {*self.groups.values(), *(user.uid for user in self.users.values())}
        for number in range(top, bottom - 1, -1):
            if number not in taken:
                return number
        raise AccountError(f"no number is free from {bottom} to {top}")

    def group(self, name: str, gid: int | None = None) -> int:
        """The group's number; it is made where it is missing."""
        if name not in self.groups:
            self.groups[name] = self.free() if gid is None or gid in self.groups.values() else gid
        return self.groups[name]

    def system_user(self, name: str, home: str, *, uid: int | None = None, gid: int | None = None, shell: str = NOLOGIN,
                    gecos: str = "") -> None:  # fmt: skip
        """A daemon's user, with a group of its own unless `gid` is given."""
        if name in self.users:
            return
        taken = {user.uid for user in self.users.values()}
        own = self.free() if uid is None or uid in taken else uid
        group = self.group(name, own) if gid is None else gid
        self.users[name] = _User(own, group, gecos, home or "/", shell)

    def person(
        self, name: str, uid: int | None, *, gecos: str, shell: str, groups: Sequence[str], password: str
    ) -> int:
        """Somebody who logs in. Returns the number.

        Raises:
            AccountError: a number or a group is not to be had.
        """
        if name == "root":
            user = self.users["root"]
            user.password, user.shell = password, shell
            return 0
        if name in self.users:
            raise AccountError(f"{name}: a package has a user of this name; take another")
        number = uid if uid is not None else self._next_person()
        if any(user.uid == number for user in self.users.values()):
            raise AccountError(f"{name}: number {number} is another user's")
        self.users[name] = _User(number, self.group(name, number), gecos, f"/home/{name}", shell, password)
        for group in groups:
            if group not in self.groups:
                raise AccountError(f"{name}: there is no group {group}; known: {', '.join(sorted(self.groups))}")
            self.members.setdefault(group, []).append(name)
        return number

    def _next_person(self) -> int:
        taken = {*self.groups.values(), *(user.uid for user in self.users.values())}
        return next(number for number in range(_FIRST_USER, 60000) if number not in taken)

    def write(self, tree: Tree) -> None:
        """The files: passwd, group, shadow, gshadow."""
        users = sorted(self.users.items(), key=lambda item: (item[1].uid, item[0]))
        groups = sorted(self.groups.items(), key=lambda item: (item[1], item[0]))
        passwd = [f"{name}:x:{u.uid}:{u.gid}:{u.gecos}:{u.home}:{u.shell}" for name, u in users]
        shadow = [f"{name}:{u.password}:{_CHANGED_DAYS_AFTER_1970}:0:99999:7:::" for name, u in users]
        group = [f"{name}:x:{gid}:{','.join(self.members.get(name, []))}" for name, gid in groups]
        gshadow = [f"{name}:*::{','.join(self.members.get(name, []))}" for name, _ in groups]
        secret = (0, self.groups.get("shadow", 0))
        tree.file("etc/passwd", _lines(passwd))
        tree.file("etc/group", _lines(group))
        tree.file("etc/shadow", _lines(shadow), 0o640, secret)
        tree.file("etc/gshadow", _lines(gshadow), 0o640, secret)


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def from_packages(accounts: Accounts, tree: Tree, packages: Sequence[str]) -> None:
    """The users that the packages' scripts would have made: by sysusers.d, and by the tables here."""
    for path in sorted(path for path, _ in tree.items() if re.fullmatch(r"usr/lib/sysusers\.d/[^/]+\.conf", path)):
        for line in (tree.text(path) or "").splitlines():
            _sysusers_line(accounts, line)
    for package in sorted(packages):
        for group in GROUPS_BY_SCRIPT.get(package, ()):
            accounts.group(group)
        if package in BY_SCRIPT:
            name, home, gid = BY_SCRIPT[package]
            accounts.system_user(name, home, gid=gid)


def _sysusers_line(accounts: Accounts, line: str) -> None:
    words = shlex.split(line, comments=True)
    if len(words) < 2 or "%" in line:
        return
    kind, name = words[0].rstrip("!"), words[1]
    rest = [("" if word == "-" else word) for word in (*words[2:], "", "", "", "")]
    number = re.match(r"[0-9]+", rest[0])
    if kind == "g":
        accounts.group(name, int(number[0]) if number else None)
    elif kind == "u":
        _, _, group = rest[0].partition(":")
        gid = int(group) if group.isdigit() else (accounts.group(group) if group else None)
        accounts.system_user(
            name, rest[2], uid=int(number[0]) if number else None, gid=gid, shell=rest[3] or NOLOGIN, gecos=rest[1]
        )
    elif kind == "m":
        accounts.group(rest[0])
        accounts.members.setdefault(rest[0], []).append(name)
