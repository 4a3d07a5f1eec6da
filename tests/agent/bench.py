"""An agent as its own process on outlets that are files, and Mosquitto's clients to drive it."""

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

DEADLINE_S = 60.0

MARKER = "test/marker"

OUTLET = """\
import pathlib, sys, time
folder, outlet, verb = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
state = folder / outlet
if (folder / "slow").exists() and verb != "state":
    (folder / "begun").touch()
    time.sleep(float((folder / "slow").read_text()))
if verb == "state":
    print(state.read_text() if state.exists() else "off")
elif outlet == "refuses":
    sys.exit("the outlet is locked")
elif outlet != "lies":
    new = folder / f"{outlet}.new"  # whoever looks meanwhile sees the old or the new, and never nothing
    new.write_text(verb)
    new.rename(state)
    with (folder / "log").open("a") as log:
        log.write(f"{outlet} {verb}\\n")
"""


class Listener:
    """`mosquitto_sub` with every message it saw; its session outlives a server that is stopped."""

    def __init__(self, port: int, *topics: str) -> None:
        command = ["mosquitto_sub", "-p", str(port), "-F", "%j", "-q", "1", "-c", "-i", f"listener-{uuid.uuid4()}"]
        for topic in (*topics, MARKER):
            command += ["-t", topic]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.messages: queue.Queue[dict] = queue.Queue()
        self.history: list[dict] = []
        self.subscribed = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        # The server answers a subscription with what is retained: from here on nothing is missed.
        assert self.subscribed.wait(DEADLINE_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            if message["topic"] == MARKER:
                self.subscribed.set()
                continue
            with contextlib.suppress(ValueError, TypeError):
                message["payload"] = json.loads(message["payload"])
            self.history.append(message)
            self.messages.put(message)

    def wait(self, wanted, deadline_s: float = DEADLINE_S) -> dict:
        """The next message for which `wanted` is true."""
        end = time.monotonic() + deadline_s
        seen = []
        while True:
            try:
                message = self.messages.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"did not come; seen: {seen[-12:]}") from None
            seen.append((message["topic"], message["payload"]))
            if isinstance(message["payload"], dict) and wanted(message):
                return message

    def wait_all(self, *wanted, deadline_s: float = DEADLINE_S) -> list[dict]:
        """One message for each of `wanted`, in whatever order they come; in the order of `wanted`."""
        found: list[dict | None] = [None] * len(wanted)
        while None in found:
            left = [number for number, message in enumerate(found) if message is None]
            message = self.wait(lambda m, left=left: any(wanted[number](m) for number in left), deadline_s)
            for number in left:
                if wanted[number](message):
                    found[number] = message
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.thread.join()
        self.process.stdout.close()


class Bench:
    """An agent with four boards on outlets that are files."""

    def __init__(self, folder: Path, mqtt) -> None:
        self.folder = folder
        self.mqtt = mqtt
        self.outlets = folder / "outlets"
        self.outlets.mkdir()
        script = folder / "outlet.py"
        script.write_text(OUTLET)
        run = [sys.executable, "-S", "-E", str(script), str(self.outlets), "{outlet}"]
        self.settings = folder / "agent.toml"
        boards = "".join(
            f'[boards.{name}]\nfeed = ["rack:{name}"]\nmin_off_s = 0.0\ntrust_mac = true\n'
            f'macs = ["52:54:00:00:00:0{n}"]\n'
            f"boot_timeout_s = 120\n"
            for n, name in enumerate(("pi", "bone", "lies", "refuses"), start=1)
        )
        self.settings.write_text(
            f'[agent]\nname = "lab"\nstate_dir = "{folder}/state"\nread_back_s = 3600\n'
            f'[mqtt]\nurl = "{mqtt.url}"\n'
            f'[controllers.rack]\ndriver = "command"\nverify_deadline_s = 1.0\n'
            + "".join(f"{verb} = {json.dumps([*run, verb])}\n" for verb in ("on", "off", "state"))
            + boards
        )
        self.process: subprocess.Popen | None = None
        self.listeners: list[Listener] = []

    def start(self) -> None:
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "--settings", str(self.settings), "--log-level", "DEBUG"],
                stdout=log,
                stderr=log,
            )

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.process = None
        return code

    def listen(self, *topics: str) -> Listener:
        self.publish(MARKER, "1", "-r")
        listener = Listener(self.mqtt.port, *topics)
        self.listeners.append(listener)
        return listener

    def publish(self, topic: str, payload: str | bytes, *options: str) -> None:
        raw = payload.encode() if isinstance(payload, str) else payload
        content = "-s" if raw else "-n"
        command = ["mosquitto_pub", "-p", str(self.mqtt.port), "-t", topic, "-q", "1", content, *options]
        subprocess.run(command, input=raw, check=True, timeout=60)

    def ready(self) -> Listener:
        """Start the agent and wait until it has said everything."""
        listener = self.listen("boardhand/#")
        self.start()
        listener.wait(lambda m: m["topic"] == "boardhand/agent/lab/state" and m["payload"]["state"] == "online")
        names = {"pi", "bone", "lies", "refuses"}
        while names:
            topic = listener.wait(lambda m: m["topic"].endswith("/state"))["topic"].split("/")
            names.discard(topic[2])
        return listener

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for listener in self.listeners:
            listener.close()


def result_of(board: str, command_id: str | None = None):
    def wanted(message: dict) -> bool:
        return message["topic"] == f"boardhand/board/{board}/power/result" and (
            command_id is None or message["payload"].get("id") == command_id
        )

    return wanted
