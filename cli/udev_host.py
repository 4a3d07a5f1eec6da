"""The udev of this host, its rules folder and its devices, behind one seam that tests replace."""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cli.exits import CliError, Exit, usage
from udev.rules_plan import Seen
from udev.serial_ports import serial_ports

RULES_FOLDER = Path("etc/udev/rules.d")
OTHER_FOLDERS = (Path("run/udev/rules.d"), Path("usr/local/lib/udev/rules.d"), Path("usr/lib/udev/rules.d"))
"""Where udev looks next for a file of the same name, udev(7); our Debian package has its files in the last one."""
UDEVADM_TIMEOUT_S = 90.0  # `settle` waits for every event of a farm that is just being plugged in
NO_PROGRAM = 127  # as a shell says it

Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def run_program(argv: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run one program to its end; one that is not there ends with 127, one that hangs is killed and ends with 124."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}
    try:
        return subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=UDEVADM_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(list(argv), NO_PROGRAM, "", f"{argv[0]} is not there")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(list(argv), 124, "", f"{argv[0]} took over {UDEVADM_TIMEOUT_S:g} s")


@dataclass(frozen=True, slots=True)
class UdevHost:
    """Where rules are installed, and what they are for."""

    root: Path = Path("/")
    """Of the system that gets the rules."""
    sysfs: Path = Path("/sys")
    dev: Path = Path("/dev")
    run: Runner = field(default=run_program)
    live: bool = True
    """Whether the rules are for the system that runs here; an image's udev does not run."""

    def file(self, name: str) -> Path:
        """Where a rules file is installed."""
        return self.root / RULES_FOLDER / name

    def effective(self, name: str) -> tuple[Path, str] | None:
        """The rules file of this name that udev reads, and its text; None if there is none.

        Raises:
            CliError: it may not be read.
        """
        for folder in (RULES_FOLDER, *OTHER_FOLDERS):
            path = self.root / folder / name
            try:
                return path, path.read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise CliError(Exit.NOT_ALLOWED, f"{path}: {error.strerror}", "run it as root") from None
        return None

    def write(self, name: str, text: str) -> None:
        """Put a rules file there, whole or not at all: udev may read the folder at any moment.

        Raises:
            CliError: it cannot be written.
        """
        target = self.file(name)
        fresh = target.with_name(f".{name}.new")  # udev reads what ends with .rules
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("w", encoding="ascii") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(target)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            code = Exit.NOT_ALLOWED if isinstance(error, PermissionError) else Exit.FAILED
            raise CliError(code, f"{target}: {error.strerror}", "run it as root") from None

    def seen(self) -> Seen:
        """The serial ports of this host.

        Raises:
            CliError: there is no sysfs.
        """
        try:
            ports = serial_ports(self.sysfs)
        except OSError as error:
            raise usage(f"no sysfs at {self.sysfs}: {error.strerror}", "mount it") from None
        return Seen({port.name: port for port in ports}, self.properties(), self.resolve)

    def properties(self) -> dict[str, dict[str, str]]:
        """The properties that udev keeps of each tty, by the kernel's name; empty where udev does not answer."""
        done = self.run(["udevadm", "info", "--export-db"])
        found = {}
        for block in done.stdout.split("\n\n") if done.returncode == 0 else []:
            path = re.search(r"^P: .*/tty/([^/\n]+)$", block, re.MULTILINE)
            if path is not None:
                found[path[1]] = dict(re.findall(r"^E: ([^=\n]+)=(.*)$", block, re.MULTILINE))
        return found

    def resolve(self, device: str) -> str | None:
        """The kernel's name of what a node or a link leads to, as `ttyUSB0`; None where nothing is."""
        path = self.dev / device.removeprefix("/dev/")
        try:
            return path.resolve(strict=True).name
        except OSError:
            # A host without nodes, as a container's, may still show the port in sysfs.
            name = device.removeprefix("/dev/")
            return name if re.fullmatch(r"tty[A-Za-z]+[0-9]+", name) else None
