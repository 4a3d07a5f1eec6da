"""All checks of one settings file, in the order in which a person would look."""

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent import settings as agent_settings
from agent.settings import AgentSettings
from broker import settings as broker_settings
from broker.settings import BrokerSettings
from cli.doctor import clock, devices, firewall, folders, identity, mqtt, nfs, ports, segment, wants
from cli.doctor.finding import Finding, unseen, well, wrong
from cli.doctor.identity import Identity
from daemon.settings_file import SettingsError

Progress = Callable[[str, float], None]
_LOADERS: dict[str, Callable[[Path], object]] = {"agent": agent_settings.load, "broker": broker_settings.read_settings}


@dataclass(slots=True)
class Subject:
    """One settings file and the daemons that read it.

    Attributes:
        who: as whom each daemon runs.
        pids: the process of each that runs with these settings.
    """

    file: Path
    agent: AgentSettings | None = None
    broker: BrokerSettings | None = None
    who: dict[str, Identity] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)

    @property
    def wants(self) -> wants.Wants:
        """What both need."""
        whole = wants.Wants()
        parts = [wants.of_agent(self.agent)] if self.agent is not None else []
        parts += [wants.of_broker(self.broker)] if self.broker is not None else []
        for part in parts:
            whole.ports += part.ports
            whole.devices += part.devices
            whole.folders += part.folders
            whole.secrets += part.secrets
            whole.capabilities |= part.capabilities
        return whole


def read(file: Path, user: str | None) -> tuple[Subject, list[Finding]]:
    """The settings, checked as the daemons would, and as whom they run. `user` None: as whom a daemon of these
    settings runs now, else the service's user, else as whom the doctor runs.

    Raises:
        KeyError: there is no user of that name.
    """
    subject, found = Subject(file), []
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        tables = {}  # the loader below says it better, with the line
    daemons = ["agent"] if "agent" in tables else []
    daemons += ["broker"] if "broker" in tables or "agent" not in tables else []
    for daemon in daemons:
        try:
            loaded = _LOADERS[daemon](file)
        except SettingsError as error:
            found.append(
                wrong("settings", str(file), f"{daemon}: {error}", f"boardhand check {file}  # when it is mended")
            )
            continue
        found.append(well("settings", str(file), f"the {daemon} would take it"))
        if isinstance(loaded, AgentSettings):
            subject.agent = loaded
        elif isinstance(loaded, BrokerSettings):
            subject.broker = loaded
        state_dir = _state_dir(subject, daemon)
        pid = identity.running(state_dir, daemon)
        if pid is not None:
            subject.pids[daemon] = pid
        subject.who[daemon] = _identity(user, pid)
    return subject, found


def _state_dir(subject: Subject, daemon: str) -> Path:
    if daemon == "agent" and subject.agent is not None:
        return subject.agent.agent.state_dir
    return subject.broker.broker.state_dir if subject.broker is not None else Path()


def _identity(user: str | None, pid: int | None) -> Identity:
    if user is not None:
        return identity.of_user(user)
    running = None if pid is None else identity.of_process(pid)
    if running is not None:
        return running
    try:
        return identity.of_user(identity.SERVICE_USER)
    except KeyError:
        return identity.own()


def examine(subject: Subject, progress: Progress) -> Iterator[Finding]:
    """Every finding beside those of `read`."""
    needs = subject.wants
    yield from _privileges(subject, needs)
    progress("look who listens", 0.0)
    yield from _ports(subject, needs)
    if subject.agent is not None:
        ours = ports.descendants(subject.pids["agent"]) if "agent" in subject.pids else frozenset[int]()
        progress("look at devices", 0.1)
        yield from devices.check(needs.devices, subject.who["agent"], ours=ours)
    yield from folders.check_folders(needs.folders, subject.who)
    yield from folders.check_secrets(needs.secrets, subject.who)
    yield clock.check()
    progress("ask the MQTT server", 0.3)
    yield from _mqtt(subject, progress)
    yield from firewall.check(needs.ports)
    if subject.agent is not None:
        yield from _network(subject.agent, progress)
        yield from nfs.check(subject.agent, subject.pids.get("agent"))


def _privileges(subject: Subject, needs: wants.Wants) -> Iterator[Finding]:
    for daemon, who in subject.who.items():
        pid = subject.pids.get(daemon)
        state = f"runs as {who.name} (process {pid})" if pid is not None else f"does not run; looked at as {who.name}"
        yield well("privileges", daemon, state)
    pid = subject.pids.get("agent")
    if needs.capabilities:
        status = None
        if pid is not None:
            try:
                status = Path(f"/proc/{pid}/status").read_text(errors="replace")
            except OSError:
                pid = None  # it has just ended
        first = identity.first_unprivileged_port()
        yield from identity.capabilities(needs.capabilities, status, first, pid=pid)


def _ports(subject: Subject, needs: wants.Wants) -> Iterator[Finding]:
    ours = {daemon: ports.descendants(pid) for daemon, pid in subject.pids.items()}
    try:
        there = ports.listeners() if needs.ports else []
    except OSError as error:
        yield unseen("ports", "all", f"{error.filename}: {error.strerror}")
        return
    yield from ports.check(needs.ports, there, ours)


def _mqtt(subject: Subject, progress: Progress) -> Iterator[Finding]:
    if subject.agent is not None:
        hears, says = wants.agent_topics(subject.agent), wants.agent_says(subject.agent)
        yield from mqtt.check(subject.agent.mqtt, "agent", hears, says, progress)
    if subject.broker is not None:
        hears, says = wants.broker_topics(subject.broker), wants.broker_says(subject.broker)
        yield from mqtt.check(subject.broker.mqtt, "broker", hears, says, progress)


def _network(settings: AgentSettings, progress: Progress) -> Iterator[Finding]:
    table = settings.netboot
    if table is None:
        return
    yield segment.check_interface(table)
    yield segment.check_rivals(table, progress)
