"""A network namespace with an NFS server's address and some boards', and libnfs' programs as foreign clients in it."""

import os
import shlex
import socket
import subprocess
import time

PORT = 2049
SERVER, BOARDS = "10.77.0.1", {"b1": "10.77.0.11", "b2": "10.77.0.12", "stranger": "10.77.0.13"}
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=@</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
"""


class NfsLab:
    """All addresses lie on its loopback: who speaks to a board's own address is that board to the server, too."""

    def __init__(self, folder):
        self.name = f"bh-roots-{os.getpid()}"
        self.folder = folder
        self.processes = []
        run_quietly("ip", "netns", "add", self.name)
        run_quietly("ip", "-n", self.name, "link", "set", "lo", "up")
        for address in (SERVER, *BOARDS.values()):
            run_quietly("ip", "-n", self.name, "addr", "add", f"{address}/32", "dev", "lo")

    def inside(self, *command, **more):
        return ["nsenter", f"--net=/run/netns/{self.name}", *map(str, command)]

    def wrapper(self, program):
        """A program that is `program` inside; it has the process id that it was started with."""
        path = self.folder / f"in-lab-{program}"
        path.write_text(f'#!/bin/sh\nexec {shlex.join(self.inside(program))} "$@"\n')
        path.chmod(0o755)
        return str(path)

    def client(self, program, board, path, *more):
        url = f"nfs://{BOARDS[board]}/{path}?version=4&nfsport={PORT}"
        command = self.inside(program, *more, url)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def read(self, board, path):
        """A file as a board reads it, None where it is refused."""
        done = self.client("nfs-cat", board, path)
        return done.stdout if done.returncode == 0 else None

    def write(self, board, path, text):
        """Whether a board may write a file."""
        local = self.folder / "to-be-written"
        local.write_text(text)
        return self.client("nfs-cp", board, path, str(local)).returncode == 0

    def bus(self):
        """A D-Bus of its own, as DBUS_SYSTEM_BUS_ADDRESS has it."""
        path, config = self.folder / "bus", self.folder / "bus.conf"
        config.write_text(_BUS.replace("@", str(path)))
        self.start("dbus-daemon", f"--config-file={config}", "--nofork")
        _until(lambda: _listens(path))
        return f"unix:path={path}"

    def start(self, *command, **environment):
        said = (self.folder / f"{command[0]}.log").open("w")
        self.processes.append(
            subprocess.Popen(
                self.inside(*command),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        )
        said.close()
        return self.processes[-1]

    def close(self):
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(60)
        run_quietly("ip", "netns", "del", self.name)


def _until(seen, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not seen():
        assert time.monotonic() < deadline, "too late"
        time.sleep(0.02)


def _listens(path):
    """A path that is there may be bound and not yet listened on."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def run_quietly(*command):
    subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
