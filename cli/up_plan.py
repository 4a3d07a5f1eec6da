"""What `boardhand up` starts: folders, settings files and command lines. Nothing is started here."""

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.exits import CliError, Exit, usage
from cli.supervisor import ChildRule
from cli.target import Target
from cli.up_page import Page

AGENT = "virtual-lab"  # the virtual farm's agent; with --mqtt it shares the server with real ones
DEMO_IDLE_S = 5.0  # long enough to see that a board is idle, short enough to wait for

# Stopping goes from the highest stage down: agents and broker say 'offline' while the server is still there.
MOSQUITTO = ChildRule("mosquitto", stage=0, stop_deadline_s=10.0)
BROKER = ChildRule("broker", stage=1, stop_deadline_s=20.0)
FARM = ChildRule("farm", stage=2, stop_deadline_s=40.0)  # it gives its own agent and boards 25 s
REAL_AGENT = ChildRule("agent", stage=2, stop_deadline_s=20.0)


@dataclass(frozen=True, slots=True)
class Folders:
    """The state folder, taken apart."""

    root: Path

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def mosquitto(self) -> Path:
        return self.root / "mosquitto"

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def farm(self) -> Path:
        return self.root / "farm"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def state_folder(given: Path | None, environment: Mapping[str, str]) -> Path:
    """`--state-dir`, else `boardhand/up` in XDG_STATE_HOME, else in ~/.local/state."""
    if given is not None:
        return given.absolute()
    base = environment.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "boardhand" / "up"


@contextmanager
def locked(folders: Folders) -> Iterator[None]:
    """Make the folders, and hold them for this process.

    Raises:
        CliError: another `boardhand up` uses them, or they cannot be written.
    """
    try:
        for folder in (folders.root, folders.logs, folders.mosquitto, folders.broker, folders.farm):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folders.root / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise usage(f"state folder {folders.root}: {error.strerror}", "choose another --state-dir") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise CliError(
            Exit.FAILED, f"another 'boardhand up' uses {folders.root}", "stop it, or choose another --state-dir"
        ) from None
    try:
        for log in folders.logs.glob("*.log"):
            log.replace(log.with_suffix(".log.1"))  # one run back is kept
        yield
    finally:
        os.close(handle)


def children_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the daemons: without variables that would turn their settings to another server."""
    return {name: value for name, value in environment.items() if not name.startswith("BOARDHAND_")}


def broker_settings(target: Target, folders: Folders, page: Page | None, *, idle_s: float | None) -> str:
    """The broker's settings file, TOML. A JSON string is a TOML basic string."""
    mqtt = {
        "url": target.url,
        "prefix": target.prefix,
        "username": target.username,
        "password_file": _absolute(target.password_file),
        "ca_file": _absolute(target.ca_file),
        "client_cert_file": _absolute(target.client_cert),
        "client_key_file": _absolute(target.client_key),
    }
    lines = ["# Written by 'boardhand up' at each start: changes are lost.", "[mqtt]"]
    lines += [f"{key} = {_toml(value)}" for key, value in mqtt.items() if value is not None]
    lines += ["", "[broker]", f"state_dir = {_toml(str(folders.broker))}"]
    if idle_s is not None:
        # A board that may sleep after a few idle seconds is not to be kept awake by the rule for real hardware.
        lines += [f"idle_s = {idle_s}", f"min_on_s = {min(idle_s, 120.0)}"]
    if page is not None:
        lines += ["", page.table()]
    return "\n".join(lines) + "\n"


def _absolute(name: str | None) -> str | None:
    return None if name is None else str(Path(name).absolute())


def _toml(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def broker_command(settings: Path) -> list[str]:
    return [sys.executable, "-m", "broker", "--settings", str(settings)]


def agent_command(settings: Path) -> list[str]:
    return [sys.executable, "-m", "agent", "--settings", str(settings)]


def farm_command(target: Target, folders: Folders, boards: int, light: int) -> list[str]:
    """The virtual farm's command line. It carries names of secret files, never their content."""
    command = [sys.executable, "-m", "virtual_lab.farm", "--dir", str(folders.farm)]
    command += ["--boards", str(boards), "--light", str(light), "--agent", AGENT]
    command += ["--mqtt", target.url, "--prefix", target.prefix]
    if target.username:
        command += ["--mqtt-username", target.username]
    files = {
        "--mqtt-password-file": target.password_file,
        "--mqtt-ca-file": target.ca_file,
        "--mqtt-client-cert-file": target.client_cert,
        "--mqtt-client-key-file": target.client_key,
    }
    for option, name in files.items():
        if name:
            command += [option, str(Path(name).absolute())]
    return command


def agent_overrides(target: Target) -> dict[str, str]:
    """Environment by which a real agent's settings are turned to the server of `up`."""
    values = {
        "URL": target.url,
        "PREFIX": target.prefix,
        "USERNAME": target.username,
        "PASSWORD_FILE": _absolute(target.password_file),
        "CA_FILE": _absolute(target.ca_file),
        "CLIENT_CERT_FILE": _absolute(target.client_cert),
        "CLIENT_KEY_FILE": _absolute(target.client_key),
    }
    return {f"BOARDHAND__MQTT__{name}": value for name, value in values.items() if value is not None}
