"""`boardhand discover`: what there is to switch and to read around this host, shown, and written into settings."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from agent.discovery import mdns, power_cables, servers_by_dns
from agent.discovery.findings import Candidate, MqttServer, Problem, SerialLine
from agent.discovery.plugs_by_mqtt import LISTEN_S, Announcements, listen
from agent.discovery.shellies import ShellyFinder
from agent.discovery.snmp_pdus import OtherDevice, SnmpAccess, SnmpFinder
from agent.discovery.sweep import Address, NetworkError, addresses_of, ask_each, networks_of
from agent.power.errors import ConfigurationError
from cli.discover_local import Local, Place, look
from cli.exits import CliError, Exit, usage
from cli.target import Target
from daemon.mqtt_discovery import SrvLookup
from daemon.mqtt_settings import MqttSettings

ProgressOf = Callable[[str], Callable[[int, int], None]]
"""Takes what is under way, returns what is to be told of each step: (done, of how many)."""
DNS_S = 3.0
"""A name server that is asked by the way may not hold everything up."""
EVERY_LIKELY = "*"
"""Stands for the ports that are likely to be cables, in `Wanted.probe`."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        target: the MQTT server where plugs are listened for; None for not at all.
        networks: where PDUs and plugs are looked for.
        snmp: with which credentials PDUs are asked, one after the other; without any no SNMP is spoken.
        domains: where DNS is asked for MQTT servers; empty for this host's own, None for nowhere.
        probe: serial ports that may be asked whether they are power cables, or `EVERY_LIKELY`.
        by_mdns: whether multicast DNS is asked.
    """

    target: Target | None = None
    networks: Sequence[str] = ()
    snmp: Sequence[SnmpAccess] = ()
    domains: Sequence[str] | None = ()
    probe: Sequence[str] = ()
    by_mdns: bool = True
    http_port: int = 80
    mdns_group: tuple[str, int] = mdns.GROUP
    place: Place = field(default_factory=Place)
    lookup: Callable[[], SrvLookup] = lambda: SrvLookup(timeout_s=DNS_S)
    mqtt_listen_s: float = LISTEN_S


@dataclass
class Found:
    """All that was found."""

    local: Local
    cables: list[Candidate] = field(default_factory=list)
    pdus: list[Candidate] = field(default_factory=list)
    others: list[OtherDevice] = field(default_factory=list)
    plugs: list[Candidate] = field(default_factory=list)
    servers: list[MqttServer] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def candidates(self) -> list[Candidate]:
        """What can be a controller, in the order in which a person would write it."""
        return [*self.local.candidates, *self.cables, *self.pdus, *self.plugs]

    @property
    def lines(self) -> list[SerialLine]:
        """Serial ports that may be consoles."""
        return self.local.lines(frozenset(name for cable in self.cables for name in cable.identities))

    @property
    def hindrances(self) -> list[Problem]:
        """All problems."""
        return [*self.local.problems, *self.problems]


async def discover(wanted: Wanted, progress: ProgressOf) -> Found:
    """Look everywhere at once.

    Raises:
        CliError: a network or a file of the command line is wrong.
    """
    try:
        networks = networks_of(wanted.networks)
    except NetworkError as problem:
        raise usage(str(problem)) from None
    addresses = addresses_of(networks)
    found = Found(await asyncio.to_thread(look, wanted.place))
    announced = Announcements()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_cables(wanted, found))
            group.create_task(_servers(wanted, found))
            group.create_task(_mqtt(wanted, found, announced))
            group.create_task(_pdus(wanted, found, addresses, progress("SNMP")))
            group.create_task(_shellies(wanted, found, addresses, progress("plugs")))
    except ExceptionGroup as several:
        fault = next((one for one in several.exceptions if isinstance(one, CliError)), None)
        raise several if fault is None else fault from None
    found.plugs = _without_doubles([*found.plugs, *announced.candidates()])
    found.problems += announced.strange
    return found


async def _cables(wanted: Wanted, found: Found) -> None:
    local, asked = found.local, []
    for port in local.ports:
        node, device = str(wanted.place.dev / port.name), local.lasting[port.name]
        likely = port.usb is not None and (port.usb.vendor, port.usb.product) in power_cables.MICROCONTROLLERS
        if (likely and EVERY_LIKELY in wanted.probe) or {port.name, node, device} & set(wanted.probe):
            asked.append(power_cables.AskedPort(node, device))
    there = {name for port in local.ports for name in (port.name, str(wanted.place.dev / port.name))}
    there |= {*local.lasting.values(), EVERY_LIKELY}
    for name in wanted.probe:
        if name not in there:
            found.problems.append(Problem(name, "there is no such serial port", "see 'boardhand serial'"))
    for answer in await asyncio.gather(*map(power_cables.ask, asked)):
        if isinstance(answer, Problem):
            found.problems.append(answer)
        elif answer is not None:
            found.cables.append(answer)


async def _servers(wanted: Wanted, found: Found) -> None:
    if wanted.domains is None:
        return
    domains = list(wanted.domains) or await asyncio.to_thread(servers_by_dns.own_domains)
    servers, problems = await asyncio.to_thread(servers_by_dns.find, domains, wanted.lookup())
    found.servers += servers
    found.problems += problems


async def _mqtt(wanted: Wanted, found: Found, announced: Announcements) -> None:
    target = wanted.target
    if target is None:
        return
    login = _login(target)
    try:
        settings = MqttSettings.model_validate({"url": target.url, **login})
    except ValidationError as fault:
        raise usage(str(fault.errors()[0]["msg"]), "mend the options for the MQTT server") from None
    problem = await listen(settings, announced, listen_s=wanted.mqtt_listen_s)
    if problem is not None:
        found.problems.append(problem)
        return
    found.servers.insert(0, MqttServer(target.url, "asking it: it answers", answered=True, login=login))


def _login(target: Target) -> dict[str, str]:
    """What `[mqtt]` needs beside the url. Files by whole paths: it must hold wherever the agent is started."""
    files = {
        "password_file": target.password_file,
        "ca_file": target.ca_file,
        "client_cert_file": target.client_cert,
        "client_key_file": target.client_key,
    }
    login = {} if target.username is None else {"username": target.username}
    return login | {key: str(Path(name).absolute()) for key, name in files.items() if name}


async def _pdus(
    wanted: Wanted, found: Found, addresses: Sequence[Address], progress: Callable[[int, int], None]
) -> None:
    if not addresses:
        return
    if not wanted.snmp:
        do = "name the file that holds the community: --community-file FILE, or a user of version 3: --snmp-user NAME"
        found.problems.append(Problem("PDUs and PoE switches", "were not looked for", do))
        return
    finder = SnmpFinder(wanted.snmp)
    try:
        await finder.start()
        answers = await ask_each(addresses, finder.look, progress=progress)
    except ConfigurationError as problem:
        raise CliError(Exit.USAGE, problem.problem, problem.do or "") from None
    finally:
        finder.close()
    for answer in answers:
        if isinstance(answer, Candidate):
            found.pdus.append(answer)
        elif isinstance(answer, OtherDevice):
            found.others.append(answer)
        elif answer is not None:
            found.problems.append(answer)


async def _shellies(
    wanted: Wanted, found: Found, addresses: Sequence[Address], progress: Callable[[int, int], None]
) -> None:
    announced: list[Address] = []
    if wanted.by_mdns:
        answers, faults = await mdns.browse(group=wanted.mdns_group)
        if faults:
            do = "give this host's network, or leave it out: --no-mdns"
            found.problems.append(Problem("mDNS", f"could not be asked: {', '.join(faults)}", do))
        if answers.garbled:
            found.problems.append(Problem("mDNS", f"{answers.garbled} answers made no sense"))
        found.servers += mdns.servers(answers.announced())
        announced = addresses_of(networks_of(mdns.shelly_addresses(answers.announced())))
    asked = list(dict.fromkeys([*addresses, *announced]))
    if asked:
        async with ShellyFinder(wanted.http_port) as finder:
            found.plugs += [one for one in await ask_each(asked, finder.look, progress=progress) if one is not None]


def _without_doubles(plugs: Sequence[Candidate]) -> list[Candidate]:
    """One of each device: that which can be written before that which cannot."""
    ordered = sorted(plugs, key=lambda plug: bool(plug.unwritten))
    kept: list[Candidate] = []
    for plug in ordered:
        if all(plug.identities.isdisjoint(other.identities) for other in kept):
            kept.append(plug)
    return kept
