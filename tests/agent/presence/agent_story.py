"""Run inside a network namespace of its own: Mosquitto, a whole agent, and a board that shows life by its cable
alone. Fails loudly."""

import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from tests.agent.bench import DEADLINE_S, Bench, result_of

PORT = 1883
MAC = "52:54:00:00:00:01"


def started(server: subprocess.Popen) -> None:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        assert server.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("mosquitto does not listen")


def presence(what: str):
    return lambda m: m["topic"] == "boardhand/event/pi" and m["payload"].get("details", {}).get("what") == what


def state(phase: str, reason: str | None):
    def wanted(message: dict) -> bool:
        said = message["payload"]
        return message["topic"] == "boardhand/board/pi/state" and (said["phase"], said.get("reason")) == (phase, reason)

    return wanted


def tell(bench: Bench, board: int) -> None:
    inside = ["nsenter", "-t", str(board), "-n"]
    for words in (
        f"link add bhk0 type veth peer name end0 netns {board}",
        "address add 10.9.0.1/24 dev bhk0",
        "link set bhk0 up",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    text = bench.settings.read_text()
    bench.settings.write_text(text.replace("[boards.pi]\n", '[boards.pi]\nlink = "bhk0"\n'))
    listener = bench.ready()
    bench.publish("boardhand/board/pi/power/set", "on")
    listener.wait_all(result_of("pi"), state("starting", None))
    for words in (f"link set end0 address {MAC}", "address add 10.9.0.2/24 dev end0", "link set end0 up"):
        subprocess.run([*inside, "ip", *words.split()], check=True)
    link, _ = listener.wait_all(presence("link"), state("starting", "link up on bhk0"))
    assert link["payload"]["type"] == "presence"
    assert link["payload"]["details"] == {"what": "link", "interface": "bhk0", "state": "up"}
    subprocess.run([*inside, "busybox", "ping", "-c", "1", "-W", "5", "10.9.0.1"], check=True)
    answers, _ = listener.wait_all(presence("neighbour"), state("booting", "answers as 10.9.0.2 on bhk0"))
    assert answers["payload"]["details"] == {
        "what": "neighbour", "mac": MAC, "address": "10.9.0.2", "interface": "bhk0", "state": "answers",
    }  # fmt: skip
    bench.publish("boardhand/board/pi/power/set", "off")
    listener.wait_all(result_of("pi"), state("off", None))
    subprocess.run([*inside, "ip", "link", "set", "end0", "down"], check=True)
    down = listener.wait(presence("link"))
    assert down["payload"]["details"]["state"] == "down"


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with subprocess.Popen(["mosquitto", "-p", str(PORT)], stderr=subprocess.DEVNULL) as mosquitto:
        one = None
        try:
            started(mosquitto)
            one = Bench(Path(sys.argv[2]), SimpleNamespace(port=PORT, url=f"mqtt://127.0.0.1:{PORT}"))
            tell(one, int(sys.argv[1]))
        finally:
            if one is not None:
                one.close()
            mosquitto.kill()
