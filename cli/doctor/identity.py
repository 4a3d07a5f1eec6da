"""As whom the daemon runs: what a file's mode allows that user, and which capabilities its process holds."""

import grp
import os
import pwd
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cli.doctor.finding import Finding, Verdict, unseen, well, wrong

SERVICE_USER = "boardhand"
READ, WRITE, SEARCH = 4, 2, 1
CAPABILITIES = {"CAP_NET_BIND_SERVICE": 10, "CAP_NET_RAW": 13}
"""Bits of linux/capability.h. What roots need beside them, `netboot.roots.nfs_checks` knows."""
UNIT = "boardhand-agent"


@dataclass(frozen=True, slots=True)
class Identity:
    """A user by numbers, and by name for people."""

    name: str
    uid: int
    gids: frozenset[int]

    @property
    def group(self) -> str:
        """Its first group: that of the user data base, which need not have the user's name."""
        try:
            return group_name(pwd.getpwuid(self.uid).pw_gid)
        except KeyError:
            return group_name(min(self.gids, default=self.uid))

    def may(self, status: os.stat_result, wanted: int) -> bool:
        """Whether the file's owner, group and mode let it do `wanted` (READ, WRITE, SEARCH added up); root may all."""
        if self.uid == 0:
            return True
        mode = status.st_mode
        if status.st_uid == self.uid:
            mode >>= 6
        elif status.st_gid in self.gids:
            mode >>= 3
        return mode & wanted == wanted


def of_user(name: str) -> Identity:
    """The user `name` with all its groups.

    Raises:
        KeyError: there is no such user.
    """
    entry = pwd.getpwnam(name)
    return Identity(name, entry.pw_uid, frozenset(os.getgrouplist(name, entry.pw_gid)))


def own() -> Identity:
    """The doctor's own."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    return Identity(name, os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


def of_process(pid: int, proc: Path = Path("/proc")) -> Identity | None:
    """That of a running process; None where it has ended."""
    try:
        text = (proc / str(pid) / "status").read_text(errors="replace")
    except OSError:
        return None
    numbers = {key: value.split() for key, _, value in (line.partition(":") for line in text.splitlines())}
    uid = int(numbers["Uid"][1])
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Identity(name, uid, frozenset(map(int, [numbers["Gid"][1], *numbers.get("Groups", [])])))


def running(state_dir: Path, daemon: str, proc: Path = Path("/proc")) -> int | None:
    """The process that holds the state folder (`daemon.state_folder`), if its number is still that of the daemon."""
    try:
        pid = int((state_dir / f"{daemon}.lock").read_text(encoding="ascii").strip())
        words = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if daemon.encode() in words else None


def group_name(gid: int) -> str:
    """The group's name, or its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def mend_access(path: Path, status: os.stat_result, who: Identity, wanted: int) -> str:
    """The command that lets `who` do `wanted` with the file."""
    if status.st_mode >> 3 & wanted == wanted and status.st_gid != 0:
        return f"usermod -aG {group_name(status.st_gid)} {who.name}  # and start the daemon anew"
    if stat.S_ISCHR(status.st_mode):
        return "boardhand udev install"
    letters = "".join(letter for bit, letter in ((READ, "r"), (WRITE, "w"), (SEARCH, "x")) if wanted & bit)
    if status.st_uid == who.uid:
        return f"chmod u+{letters} {path}"
    return f"chgrp {who.group} {path} && chmod g+{letters} {path}"


def barred(path: Path, who: Identity) -> Path | None:
    """The first folder above `path` that `who` may not go through; None where it gets to `path`. One into which we
    may not look ourselves ends the search."""
    try:
        return next((one for one in reversed(path.resolve().parents) if not who.may(one.stat(), SEARCH)), None)
    except OSError:
        return None


def reached(said: Finding, path: Path, who: Identity) -> Finding:
    """What was said of `path`, unless all is well with it and `who` does not get as far."""
    closed = barred(path, who) if said.verdict is Verdict.OK else None
    if closed is None:
        return said
    mend = mend_access(closed, closed.stat(), who, SEARCH)
    return wrong(said.check, said.subject, f"{who.name} may not go through {closed}", mend)


# --- capabilities ----------------------------------------------------------------------------------------------


def capabilities(needed: Collection[str], status: str | None, first_port: int, *, pid: int | None) -> list[Finding]:
    """Whether the agent's process holds what its settings need.

    Args:
        needed: by name.
        status: /proc/PID/status of the running agent, or None where none runs.
        first_port: below it ports are privileged (net.ipv4.ip_unprivileged_port_start).
        pid: of the agent.
    """
    found = []
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status or "", re.MULTILINE)
    for name in sorted(needed):
        mend = f"systemctl edit {UNIT}  # [Service] AmbientCapabilities={name}; the unit of the package has it"
        if name == "CAP_NET_BIND_SERVICE" and first_port == 0:
            found.append(well("privileges", name, "not needed: this system has no privileged ports"))
        elif match is None:
            found.append(unseen("privileges", name, "no agent runs with these settings", f"systemctl start {UNIT}"))
        elif int(match[1], 16) >> CAPABILITIES[name] & 1:
            found.append(well("privileges", name, f"the agent (process {pid}) holds it"))
        else:
            found.append(wrong("privileges", name, f"the agent (process {pid}) lacks it", mend))
    return found


def first_unprivileged_port(proc: Path = Path("/proc")) -> int:
    """From which port on everybody may listen; 1024 where the kernel does not say."""
    try:
        return int((proc / "sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024
