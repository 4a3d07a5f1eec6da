"""A machine without hardware: a Debian root in namespaces of its own for mounts, processes and network."""

import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from configparser import ConfigParser
from pathlib import Path

PATIENCE_S = 60
_SETUP = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/run"
mount -t tmpfs tmpfs "$1/dev"
for node in null zero full random urandom tty; do touch "$1/dev/$node"; mount --bind "/dev/$node" "$1/dev/$node"; done
mount -t sysfs -o ro sysfs "$1/sys"
ip link set lo up
if test "$2" = card; then
    ip link add bh-deb type veth peer name bh-deb-far
    ip address add 10.77.0.1/24 dev bh-deb
    ip link set bh-deb up
    ip link set bh-deb-far up
fi
echo there
exec sleep infinity
"""


class Machine:
    """Runs programs in `root`. Needs root; nothing of it is seen outside."""

    def __init__(self, root: Path, *, card: bool = True) -> None:
        """`card`: it has a network card with an address, `bh-deb`, that leads nowhere."""
        self.root = root
        flags = ["--mount", "--pid", "--fork", "--net", "--kill-child"]
        self._holder = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", _SETUP, "sh", str(root), "card" if card else "no card"],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._children = []
        assert self._holder.stdout.readline() == "there\n"
        pid = self._holder.pid
        (self.inner,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        """The process, seen from outside, that holds its namespaces."""
        self._enter = [
            "nsenter",
            f"--target={self.inner}",
            "--mount",
            "--pid",
            "--net",
            f"--wd={root}",
            "chroot",
            str(root),
        ]
        self._environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}

    def close(self) -> None:
        self._holder.kill()  # and with it, everything that runs in there
        self._holder.communicate(timeout=PATIENCE_S)
        for child in self._children:
            child.communicate(timeout=PATIENCE_S)

    def show(self, folder: Path, inside: str) -> None:
        """Let a folder of ours be seen in there, under that path."""
        target = self.root / inside.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        command = ["nsenter", f"--target={self.inner}", "--mount", "mount", "--bind", str(folder), str(target)]
        subprocess.run(command, check=True, timeout=PATIENCE_S)

    def run(self, *command: str, code: int | None = 0) -> str:
        done = subprocess.run(
            [*self._enter, *command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 2,
            check=False,
        )
        assert code in {None, done.returncode}, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def begin(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [*self._enter, *command],
            env=self._environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._children.append(child)
        return child


class Unit:
    """A service's unit file, run by hand as systemd would: its user, its capabilities, its own command line."""

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine, self._name = machine, name
        parser = ConfigParser(strict=False, interpolation=None)
        parser.optionxform = str  # type: ignore[assignment]
        parser.read(machine.root / "usr/lib/systemd/system" / f"{name}.service")
        self.section = parser["Service"]
        # Below /tmp, which is the same folder inside and outside.
        self._folder = Path(tempfile.mkdtemp(dir=machine.root / "tmp"))
        self._folder.chmod(0o755)
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.bind(str(self._folder / "notify"))
        (self._folder / "notify").chmod(0o777)
        self._line.settimeout(PATIENCE_S)
        self.child: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        ambient = self.section.get("AmbientCapabilities", "").split()
        bounding = self.section.get("CapabilityBoundingSet", "").split()
        caps = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in ambient)])
        bound = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in bounding)])
        user = self.section["User"]
        wrapped = ["setpriv", f"--reuid={user}", f"--regid={self.section['Group']}", "--init-groups", "--no-new-privs"]
        wrapped += [f"--inh-caps={caps}", f"--ambient-caps={caps}", f"--bounding-set={bound}"]
        inside = f"/{self._folder.relative_to(self._machine.root)}/notify"
        command = shlex.split(self.section["ExecStart"])
        self.child = self._machine.begin(*wrapped, *command, NOTIFY_SOCKET=inside)
        assert self.told("READY=1")

    def told(self, word: str) -> bool:
        """Wait until the daemon tells systemd this."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            assert self.child is not None
            if self.child.poll() is not None:
                raise AssertionError(f"{self._name} ended with {self.child.returncode}: {self.child.communicate()[0]}")
            self._line.settimeout(1)
            try:
                if word in self._line.recv(4096).decode().split("\n"):
                    return True
            except TimeoutError:
                continue
        return False

    def send(self, number: signal.Signals) -> None:
        lock = self._machine.root / "var/lib/boardhand" / self._name.removeprefix("boardhand-")
        (path,) = lock.glob("*.lock")
        self._machine.run("sh", "-c", f"kill -{number.value} {path.read_text().strip()}")

    def stop(self) -> int:
        """As `systemctl stop`; its exit code."""
        self.send(signal.SIGTERM)
        assert self.child is not None
        self.child.communicate(timeout=PATIENCE_S)
        self._line.close()
        return self.child.returncode


NOT_LOOKED_AT = ("proc", "sys", "dev", "run", "tmp", "var/lib/dpkg", "var/log", "var/cache", "etc/.pwd.lock")


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path with its kind, mode, owner and, of small files, its content."""
    found = {}
    for folder, folders, files in os.walk(root):
        place = Path(folder).relative_to(root)
        folders[:] = [name for name in folders if str(place / name) not in NOT_LOOKED_AT]
        for name in (*folders, *files):
            path = Path(folder, name)
            inner = str(place / name)
            if inner in NOT_LOOKED_AT or (inner.startswith("etc/") and inner.endswith("-")):
                continue  # copies that useradd keeps
            state = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() and state.st_size < 65536 else b""
            found[inner] = (state.st_mode, state.st_uid, state.st_gid, content)
    return found
