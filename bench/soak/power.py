"""Power, hour after hour: an agent that is killed now and then, PDUs that misbehave, and every answer held against the
hardware.

    python bench/soak/power.py [--seconds 600] [--seed N]

Forty boards on five virtual SNMP PDUs (another process). Commands with ids go out over MQTT in random order; PDUs drop
packets, fall silent, answer late, refuse and lie; the agent is ended with SIGKILL and started again. It fails when

- an answer says `verified` and the outlet is not what was asked for, or claims a power that the outlet has not,
- a command is never answered,
- the events of a board have a gap,
- the agent's memory or its open files keep growing.
"""

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from cli import private_mosquitto  # noqa: E402 -- found through the line above
from daemon.mqtt_link import Message, MqttLink  # noqa: E402
from daemon.mqtt_settings import MqttSettings  # noqa: E402

PDUS, OUTLETS = 5, 8
FAULT_EVERY_S, KILL_EVERY_S = 4.0, 45.0
ANSWER_DEADLINE_S = 40.0
"""The slowest error: four commands may wait before this one, each up to its answer deadline of 6 s and a call."""
GROWTH_ALLOWED = 1.3
"""Of memory, against what it was after the first minute of an agent's life."""
MILD = ({"do": "drop_every", "value": 3}, {"do": "late", "value": 0.2}, {"do": "drop_answer_every", "value": 4})
HARD = ({"do": "deaf", "value": True},)
WELL = (
    {"do": "deaf", "value": False},
    {"do": "drop_every", "value": 0},
    {"do": "drop_answer_every", "value": 0},
    {"do": "late", "value": 0},
    {"do": "lie", "outlets": []},
    {"do": "refuse", "outlets": []},
)


class FailedError(Exception):
    """A promise that was not kept."""


class Pdus:
    """The virtual PDUs' process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "virtual_lab.snmp_pdu", "--model", "apc-rpdu2", "--light", "--stop-at-eof"]
        command += ["--count", str(PDUS), "--outlets", str(OUTLETS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.ports: list[int] = self._answer()["ports"]

    def _answer(self) -> dict[str, Any]:
        if self.process.stdout is None or not (line := self.process.stdout.readline()):
            raise FailedError("the virtual PDUs ended early")
        return dict(json.loads(line))

    def tell(self, pdu: int, order: dict[str, Any]) -> dict[str, Any]:
        if self.process.stdin is None:
            raise FailedError("the virtual PDUs cannot be told anything")
        self.process.stdin.write(json.dumps({"pdu": pdu - 1, **order}) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        if not answer["ok"]:
            raise FailedError(f"PDU {pdu} does not take {order}: {answer}")
        return answer

    def is_on(self, pdu: int, outlet: int) -> bool:
        return bool(self.tell(pdu, {"do": "state"})["on"][str(outlet)])

    def close(self) -> None:
        self.process.communicate(timeout=20)


def weight(pid: int) -> tuple[int, int]:
    """Resident memory of a process in KiB, and how many files it has open."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]), len(list(Path(f"/proc/{pid}/fd").iterdir()))


@dataclass
class Soak:
    """One run."""

    folder: Path
    url: str
    pdus: Pdus
    dice: random.Random
    agent: subprocess.Popen[bytes] | None = None
    answers: dict[str, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    seqs: dict[str, set[int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    sessions: int = 0
    settled_kib: int = 0
    online: asyncio.Event = field(default_factory=asyncio.Event)

    def write_settings(self) -> None:
        (self.folder / "community").write_text("private\n")
        text = (
            f'[agent]\nname = "soak"\nstate_dir = "{self.folder}/state"\nread_back_s = 2\nmeter_every_s = 2\n'
            f'[mqtt]\nurl = "{self.url}"\n'
        )
        for number, port in enumerate(self.pdus.ports, start=1):
            text += f'[controllers.pdu-{number}]\ndriver = "snmp"\nhost = "127.0.0.1"\nport = {port}\ntimeout_s = 0.3\n'
            text += f'community_file = "{self.folder}/community"\n'
            for outlet in range(1, OUTLETS + 1):
                text += f'[boards.b-{number}-{outlet}]\nfeed = ["pdu-{number}:{outlet}"]\nmin_off_s = 0.1\n'
                text += "verify_deadline_s = 3\n"
        (self.folder / "agent.toml").write_text(text)

    def start_agent(self) -> None:
        self.online.clear()
        with (self.folder / "agent.log").open("ab") as log:
            command = [sys.executable, "-m", "agent", "--settings", f"{self.folder}/agent.toml", "--log-level", "ERROR"]
            self.agent = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        self.sessions += 1
        self.settled_kib = 0

    def heard(self, message: Message) -> None:
        parts = message.topic.split("/")
        try:
            said = json.loads(message.payload)
        except ValueError:
            return
        if parts[-1] == "result" and said.get("id") in self.answers and not self.answers[said["id"]].done():
            self.answers[said["id"]].set_result(said)
        elif parts[1] == "event":
            self.seqs.setdefault(parts[2], set()).add(said["seq"])
        elif parts[1:] == ["agent", "soak", "state"] and said["state"] == "online":
            self.online.set()

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- what goes on all the time -------------------------------------------------------------------------------

    async def command(self, link: MqttLink, pdu: int, outlet: int, end: float) -> None:
        """Switch one board again and again."""
        board, number = f"b-{pdu}-{outlet}", 0
        while time.monotonic() < end:
            await self.online.wait()
            number += 1
            action, key = self.dice.choice(["on", "off", "cycle"]), f"{board}-{number}-{self.sessions}"
            self.answers[key] = asyncio.get_running_loop().create_future()
            begun = time.monotonic()
            payload = json.dumps({"power": action, "id": key}).encode()
            while not self.answers[key].done():
                # Repeated with the same id, as a careful client does: a killed agent answers when it is back.
                await link.publish(f"boardhand/board/{board}/power/set", payload)
                await asyncio.wait([self.answers[key]], timeout=5)
                if time.monotonic() - begun > ANSWER_DEADLINE_S + 20 * (self.sessions > 1):
                    raise FailedError(f"{board}: {action} was not answered in {time.monotonic() - begun:.0f} s")
            self.check(board, action, self.answers.pop(key).result(), pdu, outlet)
            await asyncio.sleep(self.dice.uniform(0, 0.5))

    def check(self, board: str, action: str, answer: dict[str, Any], pdu: int, outlet: int) -> None:
        self.count(answer["error"]["kind"] if "error" in answer else "verified")
        on, power = self.pdus.is_on(pdu, outlet), answer["power"]
        if answer["ok"] and power != ("off" if action == "off" else "on"):
            raise FailedError(f"{board}: {action} was answered ok with power {power}")
        if power != "unknown" and on != (power == "on"):
            raise FailedError(f"{board}: {action} was answered {answer}; the outlet is {'on' if on else 'off'}")

    async def misbehave(self, end: float) -> None:
        while time.monotonic() < end:
            pdu = self.dice.randint(1, PDUS)
            for order in WELL:
                self.pdus.tell(pdu, order)
            kind = self.dice.random()
            if kind < 0.4:
                self.pdus.tell(pdu, self.dice.choice(MILD))
            elif kind < 0.5:
                self.pdus.tell(pdu, self.dice.choice(HARD))
            elif kind < 0.7:
                word = self.dice.choice(["lie", "refuse"])
                self.pdus.tell(pdu, {"do": word, "outlets": [str(self.dice.randint(1, OUTLETS))]})
            await asyncio.sleep(FAULT_EVERY_S)

    async def kill(self, end: float) -> None:
        while time.monotonic() + KILL_EVERY_S < end:
            await asyncio.sleep(KILL_EVERY_S * self.dice.uniform(0.5, 1.5))
            if self.agent is None:
                return
            self.agent.send_signal(signal.SIGKILL)
            self.agent.wait(10)
            self.count("killed")
            self.start_agent()
            await self.online.wait()

    async def weigh(self, end: float) -> None:
        """The agent's memory and open files, against what they were when it had settled."""
        while time.monotonic() < end:
            session = self.sessions
            await asyncio.sleep(20)
            if self.agent is None or session != self.sessions:
                continue
            kib, files = weight(self.agent.pid)
            self.counts["most KiB"] = max(kib, self.counts.get("most KiB", 0))
            self.counts["most open files"] = max(files, self.counts.get("most open files", 0))
            if self.settled_kib and kib > self.settled_kib * GROWTH_ALLOWED:
                raise FailedError(f"the agent grew from {self.settled_kib} to {kib} KiB")
            if files > 100:
                raise FailedError(f"the agent has {files} files open")
            self.settled_kib = self.settled_kib or kib

    def check_events(self) -> None:
        for board, seen in self.seqs.items():
            missing = set(range(min(seen), max(seen) + 1)) - seen
            if missing:
                raise FailedError(f"{board}: events {sorted(missing)[:10]} never came")
            self.counts["events"] = self.counts.get("events", 0) + len(seen)


async def run(seconds: float, seed: int) -> dict[str, int]:
    """One soak; the counts of what happened.

    Raises:
        FailedError: a promise was not kept.
    """
    with tempfile.TemporaryDirectory(prefix="bh-soak-") as name:
        folder = Path(name)
        port = private_mosquitto.free_port()
        url = f"mqtt://127.0.0.1:{port}"
        server = subprocess.Popen(  # noqa: ASYNC220 -- nothing else runs yet
            private_mosquitto.prepare(folder / "mosquitto", folder / "mosquitto.log", port)
        )
        pdus = Pdus()
        soak = Soak(folder, url, pdus, random.Random(seed))
        soak.write_settings()
        topics = ["boardhand/board/+/power/result", "boardhand/event/+", "boardhand/agent/soak/state"]

        async def nothing() -> None:
            """Subscriptions are enough."""

        link = MqttLink(
            MqttSettings(url=url), "soak", will=None, subscriptions=topics, on_message=soak.heard, on_connect=nothing
        )
        try:
            await link.start()
            await link.wait_connected(10)
            soak.start_agent()
            end = time.monotonic() + seconds
            async with asyncio.TaskGroup() as group:
                for pdu in range(1, PDUS + 1):
                    for outlet in range(1, OUTLETS + 1):
                        group.create_task(soak.command(link, pdu, outlet, end))
                for work in (soak.misbehave, soak.kill, soak.weigh):
                    group.create_task(work(end))
            await asyncio.sleep(3)  # events that are under way
            soak.check_events()
        finally:
            await link.stop()
            if soak.agent is not None:
                soak.agent.terminate()
                soak.agent.wait(30)
            pdus.close()
            server.terminate()
            server.wait(20)
        return soak.counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.seconds:.0f} s")
    counts: dict[str, int] = {}
    problems: list[str] = []
    try:
        counts = asyncio.run(run(args.seconds, args.seed))
    except* FailedError as failed:
        problems = [str(problem) for problem in failed.exceptions]
    for problem in problems:
        print(f"FAILED {problem}")
    if problems:
        return 1
    print(", ".join(f"{what}: {number}" for what, number in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
