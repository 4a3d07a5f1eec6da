"""`boardhand discover --write`: what was found goes into a settings file, and nothing that stands there is touched."""

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.discovery.findings import MqttServer, stem_of
from agent.discovery.known import known_devices, tty
from agent.discovery.settings_text import Additions, inserted, missing, named, new_file
from agent.discovery.toml_places import CannotInsertError
from cli.discover import Found
from cli.exits import CliError, Exit
from cli.settings_change import SettingsChange, read_text

STATE_DIR = "/var/lib/boardhand/agent"


@dataclass(frozen=True, slots=True)
class Plan(SettingsChange):
    """What would be written, and what of it is new."""

    additions: Additions


def plan(found: Found, path: Path, *, agent: str | None, resolve: Callable[[str], list[str]] | None = None) -> Plan:
    """What `path` would become. Blocks for DNS where it names controllers by host name.

    Raises:
        CliError: it cannot be read, is no TOML, or has no place for more.
    """
    path = path.resolve()  # a link stays one
    old, text, tables = read_text(path)
    known = known_devices(tables, resolve)
    fresh = [one for one in found.candidates if one.identities.isdisjoint(known)]
    controllers = tables.get("controllers")
    taken = set(controllers) if isinstance(controllers, dict) else set()
    lines = [line for line in found.lines if tty(line.device) not in known]
    additions = missing(Additions(named(fresh, taken), lines), text, known)
    if old is None:
        new = new_file(agent or _own_name(), STATE_DIR, _only(found.servers), additions)
    elif additions.empty:
        new = text
    else:
        try:
            new = inserted(text, additions)
        except CannotInsertError as problem:
            raise CliError(Exit.USAGE, f"{path}: {problem}", "or write to another file, and copy from there") from None
    return Plan(path, old, new.encode(), additions)


def _only(servers: list[MqttServer]) -> MqttServer | None:
    """The MQTT server that answered, or the only one that was found; of several others a person has to choose."""
    answered = next((server for server in servers if server.answered), None)
    if answered is not None:
        return answered
    return servers[0] if len({server.url for server in servers}) == 1 else None


def _own_name() -> str:
    name = stem_of(socket.gethostname().partition(".")[0], "agent")
    return name if re.match(r"[a-z0-9]", name) else "agent"
