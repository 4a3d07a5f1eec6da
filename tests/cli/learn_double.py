"""An agent that learns by a script, and what it says."""

import json
import os
import threading

from board.client import MqttConnection
from tests.cli.farm_double import DEADLINE_S, say

MAC = "02:00:00:00:00:01"
ROW = {
    "feed": ["rack-pdu:3"], "consoles": ["/dev/ttyUSB0"], "macs": [MAC], "usb": [], "links": [],
    "boot_s": 12.3, "idle_w": 2.5, "busy_w": 4.0, "confidence": 0.9997, "evidence": "mac … came 3 of 3 times",
}  # fmt: skip


def place(number, at="idle", tries=0, **more):
    listens_s = 12.4 if at == "listening" else None
    return {
        "outlet": f"pdu:{number}",
        "at": at,
        "tries": tries,
        "listens_s": listens_s,
        "watts": None,
        "heard": [],
    } | more


def heard(kind, name, words="", now=True):
    return {"kind": kind, "name": name, "words": words, "now": now}


STATE = {
    "outlets": [
        place(1, "listening", 1, watts=3.25, heard=[heard("mac", MAC, "registers, pi"), heard("link", "eth1")]),
        place(2, tries=2, heard=[heard("console", "/dev/ttyUSB0", "U-Boot", now=False)]),
        place(3, tries=1),
        place(4, "broken", 1),
        place(5),
        place(6, "rising", 1),
    ],
    "rows": [{"feed": ["pdu:2", "b:1"], "confidence": 0.9996}],
    "unknown": [
        {"outlet": "pdu:3", "because": "nothing was heard\x1b[2J"}, {"outlet": "pdu:4", "because": "it is stuck"}
    ],
    "left_s": 187.0,
}  # fmt: skip


class LearnDouble:
    """An agent that is a thread and learns by a script: running until `finish` is set, or it is stopped."""

    def __init__(self, port):
        self._port = port
        self.finish = threading.Event()
        self.asked = []
        self.refuses = None
        self.stubborn = False
        """Whether it goes on after a stop, as one whose outlets do not answer."""
        self._stopped = None
        self._link = MqttConnection("127.0.0.1", port, f"learn-double-{os.getpid()}-{port}")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="learn double")

    def __enter__(self):
        self._link.connect()
        self._link.subscribe("boardhand/agent/lab-1/request/learn")
        online = {"state": "online", "session": 1, "since": "2026-11-20T10:00:00Z"}
        say(self._port, "boardhand/agent/lab-1/state", json.dumps(online).encode(), retain=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(DEADLINE_S)
        self._link.close()

    def _run(self):
        done = {}
        while not self._stop.is_set():
            message = self._link.receive(0.05)
            if message is None:
                continue
            request = json.loads(message.payload)
            transaction = request["transaction"]
            if transaction not in done:
                done[transaction] = self._answer(request["data"])
            said = {"transaction": transaction, **done[transaction]}
            self._link.publish("boardhand/agent/lab-1/response/learn", json.dumps(said).encode(), wait=False)

    def _answer(self, data):
        self.asked.append(data["do"])
        if data["do"] == "start" and self.refuses:
            return {"ok": False, "error": {"kind": "busy", "message": self.refuses}}
        if data["do"] == "stop" and not self.stubborn:
            self._stopped = "somebody stopped it"
        lines = [{"at_s": 1.0, "stage": "trying", "percent": 4.0, "message": "rack-pdu:3: listening"}]
        state = {"left": {}, "told": 1, "lines": lines if data.get("seen", 0) < 1 else [], "took_s": 2.5}
        if "start" not in self.asked and data["do"] == "state":
            return {"ok": True, "data": {"state": "idle", **state}}
        if self.finish.is_set() or self._stopped:
            ended = {"rows": [ROW], "unknown": [], "strangers": [], "stopped": self._stopped, "unrestored": []}
            return {"ok": True, "data": {"state": "ended", **state, **ended, "restored": {"rack-pdu:3": False}}}
        return {"ok": True, "data": {**STATE, "state": "running", **state}}
