"""Where boards reach the MQTT server of `boardhand up`: on their own network, with a board's rights and no others."""

import errno
import ipaddress
import socket
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cli.exits import usage
from wire.asyncapi import Role
from wire.mqtt_acl import Account, acl


@dataclass(frozen=True, slots=True)
class BoardListener:
    """A second listener of the private Mosquitto. Boards have no name and no password, so anybody there is a board."""

    host: str
    port: int
    acl: str
    """Mosquitto's access list for it."""


def wanted(settings: Path, prefix: str) -> BoardListener | None:
    """The listener that the agent's settings promise to its boards, if it is ours to give.

    That is so where `[netboot] mqtt_for_boards` names the agent's own `address`; another server is somebody else's.
    A file that cannot be read gives None: the agent says what is wrong with it.

    Raises:
        CliError: the address is not there, or its port is taken.
    """
    try:
        netboot = tomllib.loads(settings.read_text(encoding="utf-8"))["netboot"]
        ours = ipaddress.ip_interface(netboot["address"])
        host, _, port = netboot["mqtt_for_boards"].rpartition(":")
        listener = BoardListener(host.strip("[]"), int(port), acl([Account(None, (Role.BOARD,))], prefix))
        if ipaddress.ip_address(listener.host) != ours.ip:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    _must_be_free(listener, f"sudo ip address add {ours} dev {netboot.get('interface', 'INTERFACE')}")
    return listener


def _must_be_free(listener: BoardListener, command: str) -> None:
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Mosquitto does: TIME_WAIT is no obstacle
        try:
            probe.bind((listener.host, listener.port))
        except OSError as error:
            where = f"[netboot] mqtt_for_boards: {listener.host}:{listener.port}"
            if error.errno == errno.EADDRNOTAVAIL:
                raise usage(f"{where} is no address of this machine", f"'{command}', then again") from None
            if error.errno == errno.EADDRINUSE:
                hint = "name the MQTT server that has it with --mqtt URL, or give the boards another port"
                raise usage(f"{where} is taken", hint) from None
            raise usage(f"{where} cannot be had: {error.strerror}", "choose another address or port") from None
