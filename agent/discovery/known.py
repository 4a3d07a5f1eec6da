"""Which devices a settings file names already, so that nothing is written twice. Works on the bare TOML tables: a file
that is not yet whole must not hide what stands in it."""

import os
import socket
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

HTTP_PORT, HTTPS_PORT, SNMP_PORT = 80, 443, 161
SOME_DCTTECH = "usb:hid_relay:dcttech:?"
"""A board of dcttech's that the settings name by serial. Only the board itself tells that number, and none is asked,
so it may be any of those that are plugged in."""
Resolve = Callable[[str], list[str]]


def known_devices(tables: Mapping[str, Any], resolve: Resolve | None = None) -> frozenset[str]:
    """The identities of all devices that `tables` (a parsed settings file) name, in the forms below. Blocks for DNS
    where a controller is named by host name.

    `hub:PLACE-OR-SERIAL`, `snmp:ADDRESS:PORT`, `http:ADDRESS:PORT` and `ip:ADDRESS`, `tasmota:TOPIC`, `tty:REAL PATH`,
    `usb:DRIVER:SERIAL`, `usb:DRIVER:PATH`, and `usb:DRIVER:PROTOCOL:` for the only one of its kind.
    """
    look_up = resolve or resolved
    found: set[str] = set()
    for table in _tables(tables.get("controllers")):
        found |= _of_controller(table, look_up)
    for board in _tables(tables.get("boards")):
        console = board.get("console")
        device = console.get("device") if isinstance(console, Mapping) else console
        if isinstance(device, str):
            found.add(tty(device))
    return frozenset(found)


def tty(device: str) -> str:
    """The identity of what is at a device path, whatever link names it."""
    return f"tty:{os.path.realpath(device)}"  # one that is not plugged in keeps its words


def snmp(address: str, port: int = SNMP_PORT) -> str:
    return f"snmp:{address}:{port}"


def http(address: str, port: int = HTTP_PORT) -> str:
    return f"http:{address}:{port}"


def device_at(address: str) -> set[str]:
    """What stands for whatever has this address, so that a PDU that settings drive over HTTP is not written again for
    SNMP. Nothing for addresses of this host itself, where each port may be another device."""
    return set() if ip_address(address.partition("%")[0]).is_loopback else {f"ip:{address}"}


def resolved(host: str) -> list[str]:
    """The addresses of `host`; none where nobody knows it. Blocks for as long as the resolver does."""
    try:
        return [str(ip_address(host))]
    except ValueError:
        pass
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None, proto=socket.IPPROTO_UDP)})
    except (OSError, UnicodeError):
        return []


def _of_controller(table: Mapping[str, Any], look_up: Resolve) -> set[str]:
    driver = table.get("driver")
    text = {key: value for key, value in table.items() if isinstance(value, str)}
    found: set[str] = set()
    if driver == "usb_hub" and "hub" in text:
        found.add(f"hub:{text['hub']}")
    elif driver == "snmp" and "host" in text:
        found |= {snmp(address, table.get("port", SNMP_PORT)) for address in look_up(text["host"])}
    elif driver == "tasmota" and "topic" in text:
        found.add(f"tasmota:{text['topic']}")
    elif driver in {"hid_relay", "ykush"}:
        which = [text[key] for key in ("serial", "path") if key in text]
        alone = text.get("protocol", "dcttech" if driver == "hid_relay" else "")
        found |= {f"usb:{driver}:{one}" for one in which} or {f"usb:{driver}:{alone}:"}
        if alone == "dcttech" and "serial" in text:
            found.add(SOME_DCTTECH)
    if "device" in text:
        found.add(tty(text["device"]))
    requests = [table.get(key) for key in ("on", "off", "state")] if driver == "rest" else []
    for one in (table, *requests):
        if isinstance(one, Mapping) and isinstance(one.get("url"), str):
            found |= _of_url(one["url"], look_up)
    return found


def _of_url(url: str, look_up: Resolve) -> set[str]:
    try:
        parts = urlsplit(url)
        port = parts.port or (HTTPS_PORT if parts.scheme == "https" else HTTP_PORT)
    except ValueError:
        return set()
    addresses = look_up(parts.hostname) if parts.hostname else []
    return {name for address in addresses for name in (http(address, port), *device_at(address))}


def _tables(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value.values() if isinstance(one, Mapping)] if isinstance(value, Mapping) else []
