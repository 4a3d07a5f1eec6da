"""A board with nothing but a serial port and a real shell: run as a program. Its port is a UNIX socket, as QEMU's; its
power is the word in a file, as the command driver of the tests writes it.

`shell_board.py SOCKET POWER_FILE SHELL [ARGUMENT...]`. With BOARD_LOGIN=USER:PASSWORD a login stands before the shell.
While it is on, it prints a kernel's message every BOARD_NOISE_S seconds, wherever the cursor is.
"""

import contextlib
import fcntl
import os
import pty
import select
import signal
import socket
import sys
import termios
import time
from pathlib import Path

BOOT = b"\x00\xffU-Boot 2024.01\r\nHit any key to stop autoboot:  0\r\n[    0.000000] Linux version 6.1.0\r\n"
LOGIN = """
IFS=: read -r user password <<END
$BOARD_LOGIN
END
while :; do
    printf 'board login: '; read -r given || exit
    stty -echo; printf 'Password: '; read -r secret; stty echo; echo
    if [ "$given" = "$user" ] && [ "$secret" = "$password" ]; then echo 'Welcome!'; break; fi
    sleep 0.3; echo 'Login incorrect'; echo
done
exec "$@"
"""


class Board:
    def __init__(self, path: str, power: Path, shell: list[str]) -> None:
        self.power, self.shell = power, shell
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(1)
        self.port: socket.socket | None = None
        self.master: int | None = None
        self.child = 0
        self.noise_s = float(os.environ.get("BOARD_NOISE_S", "0"))
        self.noise_at = 0.0
        self.count = 0

    def is_on(self) -> bool:
        with contextlib.suppress(OSError):
            return self.power.read_text().strip() == "on"
        return False

    def start(self) -> None:
        argv = ["sh", "-c", LOGIN, "login", *self.shell] if os.environ.get("BOARD_LOGIN") else self.shell
        self.child, self.master = pty.fork()
        if self.child == 0:
            environ = {"PATH": os.environ["PATH"], "TERM": "vt100", "PS1": "board:~# ", "HOME": "/"}
            os.execvpe(argv[0], argv, environ | {"BOARD_LOGIN": os.environ.get("BOARD_LOGIN", "")})  # noqa: S606
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, b"\x00" * 8)  # a serial port has no size
        self.say(BOOT)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)
        assert self.master is not None
        os.close(self.master)
        self.master = None

    def say(self, data: bytes) -> None:
        if self.port is not None:
            with contextlib.suppress(OSError):
                self.port.sendall(data)

    def turn(self) -> None:
        on = self.is_on()
        if on and self.master is None:
            self.start()
        elif not on and self.master is not None:
            self.stop()
        sources = [source for source in (self.server, self.port, self.master) if source is not None]
        ready, _, _ = select.select(sources, [], [], 0.02)
        if self.server in ready:
            self.port = self.server.accept()[0]
        if self.master is not None and self.master in ready:
            try:
                self.say(os.read(self.master, 4096))
            except OSError:
                self.say(b"\r\n[    9.9] reboot: Restarting system\r\n")
                self.stop()
        if self.port is not None and self.port in ready:
            data = b""
            with contextlib.suppress(ConnectionResetError):  # an agent that was killed
                data = self.port.recv(4096)
            if not data:
                self.port = None
            elif self.master is not None:
                os.write(self.master, data)
        if self.master is not None and self.noise_s and time.monotonic() >= self.noise_at:
            self.noise_at = time.monotonic() + self.noise_s
            self.count += 1
            self.say(b"[%5d.123456] usb 1-1: noise %d\r\n" % (self.count, self.count))

    def run(self) -> None:
        try:
            while True:
                self.turn()
        finally:
            if self.master is not None:
                self.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Board(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]).run()
