"""A whole agent in a network namespace: Mosquitto beside it, ganesha below it, and the boards' place at the other end
of a cable, where curl and libnfs are the boards."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from netboot.roots.importing import RootImport
from netboot.roots.store import RootStore
from tests.netboot.roots.nfs_lab import run_quietly

ROOT = Path(__file__).resolve().parents[3]
SERVER, BOARDS = "10.77.0.1", {"b1": "10.77.0.11", "b2": "10.77.0.12"}


class AgentLab:
    """`switch` is the boards' power; `messages` is all that was said on MQTT."""

    def __init__(self, folder, tree):
        self.folder = folder
        self.here, self.there = (f"bh-{side}-{os.getpid()}" for side in ("agent", "boards"))
        self.processes = {}
        for name in (self.here, self.there):
            run_quietly("ip", "netns", "add", name)
            run_quietly("ip", "-n", name, "link", "set", "lo", "up")
        run_quietly(
            "ip", "-n", self.here, "link", "add", "lan", "type", "veth", "peer", "name", "lan", "netns", self.there
        )
        for name, addresses in ((self.here, [SERVER]), (self.there, BOARDS.values())):
            for address in addresses:
                run_quietly("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "lan")
            run_quietly("ip", "-n", name, "link", "set", "lan", "up")
        self.store = RootStore(folder / "store")
        RootImport(self.store).run("debian", tree)
        self._write_settings()

    def _write_settings(self):
        for name in (*BOARDS, "kernel", "initrd"):
            (self.folder / name).write_text("on\n")
        switch = '[controllers.{0}]\ndriver = "command"\nverify_deadline_s = 3\n' + "".join(
            f"{key} = {json.dumps(command)}\n"
            for key, command in {
                "on": ["sh", "-c", f"echo on > {self.folder}/{{0}}"],
                "off": ["sh", "-c", f"echo off > {self.folder}/{{0}}"],
                "state": ["cat", f"{self.folder}/{{0}}"],
            }.items()
        )
        boards = "".join(
            switch.replace("{0}", board)
            + f'[boards.{board}]\nfeed = ["{board}:1"]\nmin_off_s = 0\nmacs = ["52:54:00:00:00:0{board[1]}"]\n'
            f'address = "{address}"\nprofile = "standing"\n'
            for board, address in BOARDS.items()
        )
        (self.folder / "agent.toml").write_text(
            f'[agent]\nname = "lab"\nstate_dir = "{self.folder}/state"\nread_back_s = 1\n[mqtt]\n'
            f'[netboot]\ninterface = "lan"\naddress = "{SERVER}/24"\nmqtt_for_boards = "{SERVER}:1883"\n'
            f'[roots]\ndir = "{self.folder}/store"\n'
            f'[profiles.standing]\nkernel = "{self.folder}/kernel"\ninitrd = "{self.folder}/initrd"\nroot = "debian"\n'
            f"{boards}"
        )
        (self.folder / "mosquitto.conf").write_text(
            "user root\nallow_anonymous true\nset_tcp_nodelay true\nlistener 1883\n"
        )

    # --- the agent's side ---

    def start(self, name, *command):
        log = (self.folder / f"{name}.log").open("a")
        full = self._in(self.here, *command)
        self.processes[name] = subprocess.Popen(full, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()

    def start_mqtt(self):
        self.start("mosquitto", "mosquitto", "-c", self.folder / "mosquitto.conf")
        here = self._in(self.here, "mosquitto_pub", "-r", "-t", "boardhand/test/marker", "-m", "{}")
        self.until(lambda: subprocess.run(here, capture_output=True, timeout=60, check=False).returncode == 0)
        # Itself, not from a shell: that would die alone when it is killed.
        self.start("heard", "mosquitto_sub", "-v", "-t", "boardhand/#")
        self.until(lambda: self.messages("test/marker"))  # from here on nothing is missed

    def start_agent(self):
        """It is up when it says that it is online."""
        before = len(self.messages("agent/lab/state"))
        self.start("agent", sys.executable, "-m", "agent", "--settings", self.folder / "agent.toml")
        self.until(lambda: [m for m in self.messages("agent/lab/state")[before:] if m["state"] == "online"])

    def kill(self, name, number=signal.SIGKILL):
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(60)

    def messages(self, topic):
        found = []
        log = self.folder / "heard.log"
        for line in log.read_text().splitlines(keepends=True) if log.exists() else ():
            name, _, payload = line.partition(" ")
            if not payload.endswith("\n"):
                break  # the end of it is being written
            if name == f"boardhand/{topic}" and payload.startswith("{"):
                found.append(json.loads(payload))
        return found

    def events(self, board, what):
        return [m for m in self.messages(f"event/{board}") if m["type"] == "root" and m["details"]["what"] == what]

    def ask(self, verb, **data):
        """The data of an answer, or its error."""
        topics = ["-t", f"boardhand/agent/lab/request/{verb}", "-e", f"boardhand/agent/lab/response/{verb}", "-W", "50"]
        message = json.dumps({"transaction": "t", "data": data})
        done = subprocess.run(
            self._in(self.here, "mosquitto_rr", *topics, "-m", message), capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        answer = json.loads(done.stdout or "{}")
        return answer["data"] if answer.get("ok") else answer.get("error", done.stderr)

    def power(self, board, to):
        topic = f"boardhand/board/{board}/power/set"
        subprocess.run(self._in(self.here, "mosquitto_pub", "-q", "1", "-t", topic, "-m", to), check=True, timeout=60)
        self.until(lambda: self.messages(f"board/{board}/state")[-1]["power"] == to)

    def ganesha_pid(self):
        return int((self.folder / "state/nfs/ganesha.pid").read_text())

    def until(self, seen, timeout_s=60.0):
        deadline = time.monotonic() + timeout_s
        while not (found := seen()):
            log = self.folder / "agent.log"
            assert time.monotonic() < deadline, (
                log.read_text()[-4000:] if log.exists() else "the agent is not there yet"
            )
            time.sleep(0.05)
        return found

    # --- the boards' side ---

    def as_board(self, board, *command):
        run_quietly("ip", "-n", self.there, "route", "replace", SERVER, "dev", "lan", "src", BOARDS[board])
        return subprocess.run(
            self._in(self.there, *command), capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip

    def boot(self, board):
        """What the board's boot file says; empty where it gets none."""
        name = f"52-54-00-00-00-0{board[1]}"
        done = self.as_board(board, "curl", "-sf", "-m", "20", f"http://{SERVER}:8069/pxelinux.cfg/01-{name}")
        return done.stdout

    def read(self, board, path):
        done = self.as_board(board, "nfs-cat", f"nfs://{SERVER}/{path}?version=4")
        return done.stdout if done.returncode == 0 else None

    def write(self, board, path, text):
        (self.folder / "local").write_text(text)
        url = f"nfs://{SERVER}/{path}?version=4"
        return self.as_board(board, "nfs-cp", str(self.folder / "local"), url).returncode == 0

    # --- the end ---

    def close(self):
        for name in ("agent", "heard", "mosquitto"):
            if name in self.processes:
                self.kill(name, signal.SIGTERM)
        from netboot.roots.views import Views

        views = Views(self.store)
        for view in views.all():
            views.release(view.board)
        for name in (self.here, self.there):
            run_quietly("ip", "netns", "del", name)

    @staticmethod
    def _in(name, *command):
        return ["nsenter", f"--net=/run/netns/{name}", *map(str, command)]
