"""Runs inside the USB guest: obeys commands that arrive on a virtio port, one JSON object a line.

    {"id": 1, "argv": ["lsusb"], "stdin": "", "timeout_s": 60, "env": {}}   run a program
    {"id": 2, "signal": 15, "of": 1}                                       send a signal to it and its children
 -> {"id": 1, "code": 0, "stdout": "...", "stderr": "...", "seconds": 0.1} code is negative for a signal
 -> {"id": 0}                                                              the guest is up

Standard library only, and no import of ours: it starts before anything of ours is looked at.
"""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

PORT = Path("/dev/virtio-ports/boardhand.commands")
NOT_STARTED = 127  # as a shell says it


class Channel:
    """The port, with whole lines in both directions."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writing = threading.Lock()
        self._running: dict[int, subprocess.Popen[str]] = {}

    def say(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        with self._writing:
            while line:
                line = line[os.write(self._port, line) :]

    def serve(self) -> None:
        """Obey for ever."""
        self.say({"id": 0})
        waiting = b""
        while True:
            block = os.read(self._port, 65536)
            if not block:  # nobody holds the other end
                time.sleep(0.05)
                continue
            *lines, waiting = (waiting + block).split(b"\n")
            for line in lines:
                self._obey(json.loads(line))

    def _obey(self, request: dict[str, Any]) -> None:
        if "signal" in request:
            found = self._running.get(request["of"])
            if found is not None and found.poll() is None:
                os.killpg(found.pid, request["signal"])
            self.say({"id": request["id"], "code": 0, "stdout": "", "stderr": "", "seconds": 0.0})
            return
        # Started here and not in the thread, so that a signal that follows at once finds it.
        began = time.monotonic()
        try:
            process = subprocess.Popen(
                request["argv"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, **request.get("env", {})},
                start_new_session=True,
            )
        except OSError as error:
            self.say({"id": request["id"], "code": NOT_STARTED, "stdout": "", "stderr": str(error), "seconds": 0.0})
            return
        self._running[request["id"]] = process
        threading.Thread(target=self._finish, args=(request, process, began), daemon=True).start()

    def _finish(self, request: dict[str, Any], process: subprocess.Popen[str], began: float) -> None:
        try:
            out, err = process.communicate(request.get("stdin", ""), request.get("timeout_s", 60))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += "\nusb guest: killed, it took too long"
        del self._running[request["id"]]
        seconds = round(time.monotonic() - began, 3)
        self.say({"id": request["id"], "code": process.returncode, "stdout": out, "stderr": err, "seconds": seconds})


if __name__ == "__main__":
    Channel(os.open(PORT, os.O_RDWR)).serve()
