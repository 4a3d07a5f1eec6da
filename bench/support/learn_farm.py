"""A virtual farm whose cabling its agent does not know: running, learnt, taken into the settings, and moved about."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bench.support.learn_cabling import Size, Truth
from cli import private_mosquitto

ROOT = Path(__file__).resolve().parents[2]
AGENT = "lab"
START_S, STOP_S = 300.0, 60.0
"""A kernel may have to be fetched first."""
CLI_S, LEARN_S = 120.0, 900.0
ANSWER_S = 10.0
PATIENCE_S = 90.0
T = TypeVar("T")


def until(look: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Look until something is seen.

    Raises:
        RuntimeError: it never is; says `what`.
    """
    deadline = time.monotonic() + patience_s
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not in {patience_s:g} s: {what}")
        time.sleep(0.2)
    return seen


class LearnFarm:
    """The farm of `truth` in `folder`, with its MQTT server at `url`."""

    def __init__(self, folder: Path, size: Size, truth: Truth, url: str) -> None:
        self.folder, self.size, self.truth, self.url = folder, size, truth, url
        self.state: dict[str, Any] = {}
        self._sockets = Path()

    @contextmanager
    def running(self) -> Iterator[None]:
        """It runs, and what is to be on is on."""
        plan = self.folder / "cabling.json"
        plan.write_text(self.truth.cabling.to_json())
        command = [
            *(sys.executable, "-m", "virtual_lab.farm", "--dir", str(self.folder / "farm"), "--mqtt", self.url),
            *("--boards", str(self.size.qemu), "--unlisted", str(self.size.qemu), "--light", str(self.size.lights)),
            *("--cabling", str(plan), "--joining", "open", "--agent", AGENT),
        ]
        out = self.folder / "farm-out.log"
        with (
            out.open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True) as process,
        ):
            try:
                until(lambda: self._is_ready(out, process), f"the farm did not come up; see {out}", START_S)
                self.state = json.loads((self.folder / "farm" / "farm.json").read_text())
                self._sockets = Path(next(iter(self.state["lights"].values()))["qmp"]).parent
                for outlet in (*self.truth.found_on, self.truth.kept):
                    self.hand(do="press", outlet=outlet, on=True)
                until(lambda: self.on_now() == {*self.truth.found_on, self.truth.kept}, "what is on is not seen")
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_S)
                process.kill()

    @staticmethod
    def _is_ready(out: Path, process: "subprocess.Popen[bytes]") -> bool:
        text = out.read_text()
        if process.poll() is not None:
            raise RuntimeError(f"the farm did not come up: {text[-2000:]}")
        return '{"ready": true}' in text

    # --- hands and eyes --------------------------------------------------------------------------------------

    def hand(self, **order: object) -> dict[str, Any]:
        """What a hand at the farm does; see `virtual_lab.cable_room`.

        Raises:
            RuntimeError: it can't.
        """
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(ANSWER_S)
            line.connect(str(self._sockets / "cables"))
            line.sendall(json.dumps(order).encode() + b"\n")
            with line.makefile("rb") as answers:
                answer: dict[str, Any] = json.loads(answers.readline())
        if not answer["ok"]:
            raise RuntimeError(f"{order}: {answer['error']}")
        return answer

    def cli(self, *words: str, timeout_s: float = CLI_S) -> "subprocess.CompletedProcess[str]":
        """Run `boardhand`."""
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "cli", *words, "--mqtt", self.url]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=env)

    def told(self, *words: str, timeout_s: float = CLI_S) -> list[Any]:
        """What `boardhand --json` says, line by line.

        Raises:
            RuntimeError: it fails.
        """
        done = self.cli(*words, "--json", timeout_s=timeout_s)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def on_now(self) -> set[str] | None:
        """The outlets that have power, as the controllers say; None while the agent is not there."""
        try:
            controllers = self.told("outlets")[0]["controllers"]
        except RuntimeError:
            return None
        return {f"{c['name']}:{o['outlet']}" for c in controllers for o in c.get("outlets", []) if o["power"] == "on"}

    def alert(self, board: str) -> str:
        """The board's retained alert `cabling` as it stands; empty if it has none."""
        topic = f"boardhand/board/{board}/alert/cabling"
        command = ["mosquitto_sub", "-p", self.url.rpartition(":")[2], "-t", topic, "-C", "1", "-W", "2", "-q", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CLI_S, check=False)
        return str(json.loads(done.stdout)["what"]) if done.stdout.strip() else ""

    # --- learning --------------------------------------------------------------------------------------------

    def learn_words(self) -> list[str]:
        """The command line of `learn`, without the MQTT server."""
        size = self.size
        rules = {"at-once": size.at_once, "listen-s": size.listen_s, "quiet-s": size.quiet_s}
        words = ["learn", "--also-on", *(word for name, value in rules.items() for word in (f"--{name}", str(value)))]
        return words + [word for port in self.truth.ports for word in ("--console", self.place(port))]

    def place(self, port: str) -> str:
        """Where a serial port is."""
        return f"unix:{self._sockets / port}"

    def learn(self) -> dict[str, Any]:
        """Run `boardhand learn`; its result, consoles by their ports' names."""
        lines = self.told(*self.learn_words(), timeout_s=LEARN_S)
        (self.folder / "learn.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        result: dict[str, Any] = lines[-1]
        for row in result["rows"]:
            row["consoles"] = [name.rpartition("/")[2] for name in row["consoles"]]
        return result

    def take_up(self, found: dict[str, Any]) -> dict[str, str]:
        """Write the rows into the settings, as boards named by the truth, and have the agent take them up. Returns the
        names by feed."""
        named = {frozenset(board.feed): board.name for board in self.truth.boards.values()}
        settings = Path(self.state["agent_settings"])
        profile = "virtual" if self.size.qemu else "light"
        lines = []
        for row in found["rows"]:
            lines += [f"\n[boards.{named[frozenset(row['feed'])]}]", f"feed = {json.dumps(row['feed'])}"]
            lines += ['feed_is = "parallel"'] if len(row["feed"]) > 1 else []
            if row["macs"]:
                address = f"10.77.2.{len(lines) + 1}"
                lines += [f"macs = {json.dumps(row['macs'])}", f'profile = "{profile}"', f'address = "{address}"']
            lines += [f"console = {json.dumps(self.place(name))}" for name in row["consoles"][:1]]
            lines += ["min_off_s = 0", "boot_retries = 0"]
        settings.write_text(settings.read_text() + "\n".join(lines) + "\n")
        self.told("agent", "reload", "--agent", AGENT)
        return {" ".join(row["feed"]): named[frozenset(row["feed"])] for row in found["rows"]}


@contextmanager
def private_mosquitto_at(folder: Path) -> Iterator[str]:
    """A Mosquitto for this run alone."""
    port = private_mosquitto.free_port()
    settings = folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with (folder / "mosquitto.log").open("wb") as log:
        server = subprocess.Popen([private_mosquitto.program(), "-c", str(settings)], stdout=log, stderr=log)
    try:
        until(lambda: _listens(port), "Mosquitto does not listen")
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S).close()
    except OSError:
        return False
    return True
