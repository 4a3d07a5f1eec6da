"""`boardhand join` as text, against an agent that answers what it is told to."""

import json
import subprocess
import sys
import threading

import pytest

from board.client import MqttConnection

MAC = "52:54:00:99:00:01"
STRANGER = {
    "mac": MAC, "name": "pi-1", "refused": False, "first_at": "2026-11-21T11:00:00+00:00",
    "last_at": "2026-11-21T11:05:00+00:00", "times": 3, "vendor_class": "U-Boot.armv8\x1b[31m", "arch": "arm64",
    "names": ["boot.scr.uimg"], "said": {"serial": "10000000abcdef01"}, "model": "Pi 4",
}  # fmt: skip
ANSWERS = {
    "strangers": {
        "open": True,
        "until": "2026-11-21T11:10:00+00:00",
        "strangers": [STRANGER],
        "free_outlets": ["pdu:3"],
    },
    "accept-board": {"board": "pi-1", "settings": {"feed": ["pdu:3"], "macs": [MAC]}, "live": True, "do": "cycle it"},
    "refuse-board": {"mac": MAC, "refused": True},
    "joining": {"open": True, "until": "2026-11-21T11:10:00+00:00"},
}


class Agent:
    """Is there under each of `names`, and answers every request of `ANSWERS`."""

    def __init__(self, port: int, *names: str) -> None:
        self.names, self.asked = names, []
        self.stop = threading.Event()
        self.link = MqttConnection("127.0.0.1", port, "agents")
        self.link.connect()
        for name in names:
            self.link.subscribe(f"boardhand/agent/{name}/request/+")
            state = {"state": "online", "session": 1, "since": "2026-11-21T11:00:00+00:00"}
            self.link.publish(f"boardhand/agent/{name}/state", json.dumps(state).encode(), retain=True)
        board = {"power": "on", "phase": "ready", "since": "2026-11-21T11:00:00+00:00", "agent": "x", "session": 1}
        self.link.publish("boardhand/board/elsewhere/state", json.dumps({**board, "seq": 1}).encode(), retain=True)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.stop.is_set():
            message = self.link.receive(0.1)
            if message is None:
                continue
            _, _, agent, _, verb = message.topic.split("/")
            request = json.loads(message.payload)
            self.asked.append((agent, verb, request["data"]))
            answer = {"transaction": request["transaction"], "ok": True, "data": ANSWERS[verb]}
            self.link.publish(f"boardhand/agent/{agent}/response/{verb}", json.dumps(answer).encode())

    def close(self) -> None:
        self.stop.set()
        self.thread.join()
        self.link.close()


@pytest.fixture
def agents(server):
    running = []

    def start(*names: str) -> Agent:
        running.append(Agent(server, *names))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture
def join(server):
    def run(*words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "cli", "join", *words, "--mqtt", f"mqtt://127.0.0.1:{server}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return run


def test_strangers_are_shown_and_taken_in(agents, join) -> None:
    agent = agents("lab")
    assert join().splitlines() == [
        "agent lab: joining is open until 2026-11-21T11:10:00+00:00",
        "  MAC                NAME  MODEL  ARCH   SERIAL            ADDRESS  LAST                       SAID",
        (
            f"  {MAC}  pi-1  Pi 4   arm64  10000000abcdef01           2026-11-21T11:05:00+00:00  "
            "U-Boot.armv8\\x1b[31m; boot.scr.uimg"
        ),
        "  outlets without a board: pdu:3",
    ]
    assert agent.asked == [("lab", "strangers", {"taken": ["elsewhere"]})]
    assert join("accept", MAC.upper(), "--feed", "pdu:3", "--label", "rack=3", "--label", "who=me").splitlines() == [
        f'pi-1 joined at lab: feed ["pdu:3"], macs ["{MAC}"]', "cycle it",
    ]  # fmt: skip
    wanted = {"mac": MAC, "feed": ["pdu:3"], "labels": {"rack": 3, "who": "me"}}
    assert agent.asked[-1] == ("lab", "accept-board", wanted)
    assert join("refuse", MAC) == f"{MAC} is refused at lab\n"


def test_with_two_agents_the_one_is_named(agents, join) -> None:
    agent = agents("lab", "shed")
    assert "was heard by lab, shed; say which one with --agent" in join("accept", MAC, "--feed", "pdu:3", code=2)
    assert "there are 2 agents: lab, shed" in join("open", code=2)
    assert join("open", "--agent", "shed", "--for", "5m") == "joining at shed is open until 2026-11-21T11:10:00+00:00\n"
    assert agent.asked[-1] == ("shed", "joining", {"open": True, "for_s": 300.0})
    assert {name for name, verb, _ in agent.asked if verb == "joining"} == {"shed"}
    assert "there is no agent attic" in join("--agent", "attic", code=4)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("accept",), "accept and refuse need a MAC address"),
        (("open", MAC), "accept and refuse need a MAC address"),
        (("accept", "nonsense"), "is not a MAC address"),
        (("accept", MAC, "--name", "No Name"), "is no board id"),
        (("accept", MAC, "--label", "x"), "is not KEY=VALUE"),
    ],
)
def test_wrong_words_are_told(join, words, why) -> None:
    assert why in join(*words, code=2)
