"""A board whose console is a real shell, at a whole agent of its own."""

import contextlib
import os
import pty
import select
import subprocess
import sys
import termios
import threading
import time
import tty
from pathlib import Path

DEADLINE_S = 60.0


class ShellBoard:
    """A serial line (a pty, as the agent opens it) with a shell behind it, and the agent that has it."""

    def __init__(self, folder: Path, mqtt_port: int, name: str = "bench-pi", agent: str = "lab2") -> None:
        self.name, self.agent, self.folder = name, agent, folder
        self.line, port = pty.openpty()
        tty.setraw(port)
        self.device = os.ttyname(port)
        os.close(port)  # the agent finds it free
        self.shell, inside = pty.openpty()
        settings = termios.tcgetattr(inside)
        settings[3] |= termios.ECHO
        termios.tcsetattr(inside, termios.TCSANOW, settings)
        self.sh = subprocess.Popen(
            ["/bin/sh", "-i"],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "PS1": "board# ", "HOME": str(folder)},
        )
        os.close(inside)
        self.heard = b""
        """What came over the line to the board."""
        self.ends, self._end = os.pipe()
        self.wires = threading.Thread(target=self._carry)
        self.wires.start()
        outlet = folder / "outlet"
        outlet.write_text("off")
        say = f'import pathlib, sys; p = pathlib.Path("{outlet}"); '
        on_off = say + "p.write_text(sys.argv[1])"
        run = f'["{sys.executable}", "-S", "-E", "-c", '
        self.settings = folder / "agent.toml"
        self.settings.write_text(
            f'[agent]\nname = "{agent}"\nstate_dir = "{folder}/agent"\n[mqtt]\nurl = "mqtt://127.0.0.1:{mqtt_port}"\n'
            f'[controllers.rack]\ndriver = "command"\n'
            f"on = {run}'{on_off}', \"on\"]\noff = {run}'{on_off}', \"off\"]\n"
            f"state = {run}'{say}print(p.read_text())']\n"
            f'[boards.{name}]\nfeed = ["rack:1"]\nmin_off_s = 0.0\nboot_timeout_s = 300\n'
            f'[boards.{name}.console]\ndevice = "{self.device}"\nwriters = "lease"\n'
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "agent.log").open("ab") as log:
            command = [sys.executable, "-m", "agent", "--settings", str(self.settings)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        path, end = self.folder / "agent" / "consoles" / f"{self.name}.sock", time.monotonic() + DEADLINE_S
        while not path.exists():
            assert self.process.poll() is None, (self.folder / "agent.log").read_text()
            assert time.monotonic() < end, "the agent did not open its console"
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def prints(self, text: str) -> None:
        """What the board says before its shell does."""
        os.write(self.line, text.encode())

    def _carry(self) -> None:
        while True:
            ready, _, _ = select.select([self.line, self.shell, self.ends], [], [])
            if self.ends in ready:
                return
            with contextlib.suppress(OSError):  # nobody has the line open
                if self.line in ready:
                    data = os.read(self.line, 4096)
                    self.heard += data
                    os.write(self.shell, data)
                if self.shell in ready:
                    os.write(self.line, os.read(self.shell, 4096))

    def close(self) -> None:
        self.stop()
        self.sh.kill()
        self.sh.wait(60)
        os.write(self._end, b".")
        self.wires.join(60)
        for number in (self.line, self.shell, self.ends, self._end):
            os.close(number)
