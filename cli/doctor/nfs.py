"""What roots over NFS need: the checks of `netboot.roots.nfs_checks`, and exportfs where the kernel serves."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from agent.settings import AgentSettings
from cli.doctor.finding import Finding, unseen, well, wrong
from netboot.roots import engine, nfs_checks
from netboot.roots.ganesha_config import PROGRAM

_EXPORTFS = "/usr/sbin:/sbin"
"""Where it is on Debian, which is not on an ordinary user's PATH."""


def check(settings: AgentSettings, agent: int | None, proc: Path = Path("/proc")) -> list[Finding]:
    """All of them; `agent` is the agent's process, whose capabilities count."""
    roots = settings.roots
    if roots is None:
        return []
    found = from_engine("kernel", [nfs_checks.kernel()])
    found += from_engine(str(roots.dir), nfs_checks.folder(roots.dir, settings.agent.state_dir))
    if agent is None:
        start = "systemctl start boardhand-agent"
        found.append(unseen("nfs", "capabilities", "no agent runs with these settings", start))
    else:
        folder = proc / str(agent)
        try:
            status, uid_map = (folder / "status").read_text(errors="replace"), (folder / "uid_map").read_text()
            found += from_engine("capabilities", nfs_checks.capabilities(status, uid_map))
        except OSError as error:
            found.append(unseen("nfs", "capabilities", f"process {agent}: {error.strerror}", "run it as root"))
    if roots.engine == "kernel":
        found += _kernel_server(agent, proc)
    else:
        found += from_engine(PROGRAM, nfs_checks.ganesha_installed(PROGRAM, v3=roots.nfs3))
    return found


def _kernel_server(agent: int | None, proc: Path) -> list[Finding]:
    there = shutil.which("exportfs") or shutil.which("exportfs", path=_EXPORTFS)
    if there is None:
        return [wrong("nfs", "exportfs", "is not installed", "apt-get install nfs-kernel-server")]
    found = [well("nfs", "exportfs", "is installed")]
    threads = proc / "fs/nfsd/threads"
    try:
        count = int(threads.read_text(encoding="ascii"))
    except (OSError, ValueError):
        count = 0
    start = "systemctl enable --now nfs-server"
    found.append(
        well("nfs", "server", f"{count} threads serve") if count else wrong("nfs", "server", "does not run", start)
    )
    if agent is not None:
        try:
            same = (proc / "1/ns/mnt").readlink() == (proc / str(agent) / "ns/mnt").readlink()
        except OSError as error:
            return [*found, unseen("nfs", "mounts", error.strerror or str(error), "run it as root")]
        found.append(mounts(same=same))
    return found


def mounts(*, same: bool) -> Finding:
    """Whether the agent's mounts are those that the kernel's server looks from."""
    if same:
        return well("nfs", "mounts", "the kernel's server sees those of the agent")
    mend = "systemctl edit boardhand-agent  # as the last part of /usr/share/doc/boardhand/examples/roots.conf says"
    return wrong("nfs", "mounts", "the agent has mounts of its own, which the kernel's server does not see", mend)


def from_engine(subject: str, found: Sequence[engine.Finding]) -> list[Finding]:
    """Findings of netboot's, as the doctor's."""
    return [well("nfs", subject, one.what) if one.ok else wrong("nfs", subject, one.what, one.advice) for one in found]
