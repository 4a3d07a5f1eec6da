"""What a server costs: CPU time and memory of a process and all that came of it."""

import os
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def tree(pid: int) -> list[int]:
    """A process and all that came of it and live."""
    children = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
    return [pid, *(below for child in children for below in tree(child))]


class Meter:
    """CPU time of a process and all that came of it, in s.

    By a control group where one can be made: only it counts the children that tftpd-hpa does not wait for. Else from
    /proc, in hundredths of a second.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._group: Path | None = None
        for parent, self._file in ((Path("/sys/fs/cgroup/cpuacct"), "cpuacct.usage"), (CGROUPS, "cpu.stat")):
            group = parent / f"bh-bench-{pid}"
            with suppress(OSError):
                group.mkdir()
                self._group = group
                (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
                self.read()
                return
            self.close()

    def read(self) -> float:
        """Seconds so far."""
        if self._group is None:
            return self._by_proc()
        text = (self._group / self._file).read_text(encoding="ascii")
        return int(text.split()[1]) / 1e6 if self._file == "cpu.stat" else int(text) / 1e9

    def _by_proc(self) -> float:
        ticks = 0
        for one in tree(self._pid):
            with suppress(OSError):
                fields = Path(f"/proc/{one}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))  # proc(5): own times and those of children that were waited for
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Call when the processes are gone."""
        if self._group is not None:
            with suppress(OSError):
                self._group.rmdir()
            self._group = None


def memory_mib(pid: int) -> float:
    """Proportional set size of a tree."""
    kib = 0
    for one in tree(pid):
        with suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    kib += int(line.split()[1])
    return kib / 1024
