"""Which MQTT server a command speaks to, and as whom: options first, then environment, then the farm on this machine.

On the fast path of `boardhand power`: plain classes, nothing heavy imported.
"""

import os
import re

from cli import farm_file
from cli.exits import CliError, Exit, usage

DEFAULT_URL = "mqtt://127.0.0.1:1883"
DEFAULT_PREFIX = "boardhand"
PORT_PLAIN = 1883  # IANA: mqtt
PORT_TLS = 8883  # IANA: secure-mqtt
_MAX_SECRET_BYTES = 65535  # MQTT 3.1.1 section 3.1.3.5: binary data with a two-byte length
# The same words as wire.names, written again because wire imports pydantic (80 ms).
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,63}(/[A-Za-z0-9_-]{1,63}){0,3}")
_URL = re.compile(r"(mqtts?)://(\[[0-9A-Fa-f:.%a-z]+\]|[^\s:/@\[\]?#]+)(?::([0-9]{1,5}))?/?")
_SRV_URL = re.compile(r"(mqtts?)\+srv://([A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*)\.?/?")
_PROBE_TIMEOUT_S = 3.0  # a person waits

# option (as in the parsed command line) -> environment variable
ENVIRONMENT = {
    "mqtt": "BOARDHAND_MQTT",
    "prefix": "BOARDHAND_PREFIX",
    "username": "BOARDHAND_USERNAME",
    "password_file": "BOARDHAND_PASSWORD_FILE",
    "ca_file": "BOARDHAND_CA_FILE",
    "client_cert": "BOARDHAND_CLIENT_CERT",
    "client_key": "BOARDHAND_CLIENT_KEY",
}


class Target:
    """One MQTT server and the farm's prefix on it. `source` says for error messages where the address came from."""

    __slots__ = ("ca_file", "client_cert", "client_key", "host", "password_file", "port", "prefix", "source", "tls",
                 "url", "username")  # fmt: skip

    def __init__(self, url: str, prefix: str, source: str) -> None:
        self.url = url
        self.tls, self.host, self.port = parse_url(url, source)
        if not _PREFIX.fullmatch(prefix):
            raise usage(f"prefix {prefix!r} is no topic prefix", "use letters, digits, '-', '_', at most four levels")
        self.prefix = prefix
        self.source = source
        self.username: str | None = None
        self.password_file: str | None = None
        self.ca_file: str | None = None
        self.client_cert: str | None = None
        self.client_key: str | None = None

    def password(self) -> str | None:
        """The first line of the password file, as the daemons read it.

        Raises:
            CliError: the file cannot be read, is not text, or is too long for MQTT.
        """
        if self.password_file is None:
            return None
        try:
            with open(self.password_file, "rb") as file:  # noqa: PTH123 -- fast path
                secret = file.read(_MAX_SECRET_BYTES + 2).partition(b"\n")[0].rstrip(b"\r")
        except OSError as error:
            raise usage(f"password file {self.password_file}: {error.strerror}", "mend --password-file") from None
        if len(secret) > _MAX_SECRET_BYTES:
            raise usage(f"password file {self.password_file} is longer than MQTT allows", "mend --password-file")
        try:
            return secret.decode()
        except UnicodeDecodeError:
            raise usage(f"password file {self.password_file} is not UTF-8 text", "mend --password-file") from None


def parse_url(url: str, source: str) -> tuple[bool, str, int]:
    """`mqtt://host[:port]` or `mqtts://…` as (TLS, host, port). `mqtt+srv://domain` and `mqtts+srv://…` ask DNS.

    Raises:
        CliError: it is neither, the port is not 1..65535, or DNS names no server.
    """
    by_srv = _SRV_URL.fullmatch(url)
    if by_srv is not None:
        return _found(by_srv[2], tls_only=by_srv[1] == "mqtts", source=source)
    match = _URL.fullmatch(url)
    if match is None:
        raise usage(f"{url!r} ({source}) is no MQTT address",
                    "write mqtt://HOST:PORT, mqtts://HOST:PORT for TLS, or mqtt+srv://DOMAIN")  # fmt: skip
    tls = match[1] == "mqtts"
    port = int(match[3]) if match[3] else PORT_TLS if tls else PORT_PLAIN
    if not 1 <= port <= 65535:
        raise usage(f"{url!r} ({source}): port {port} does not exist", "ports are 1 to 65535")
    return tls, match[2].strip("[]"), port


def _found(domain: str, *, tls_only: bool, source: str) -> tuple[bool, str, int]:
    """The server that DNS names for `domain`: of several, the first in RFC 2782's order that takes a connection."""
    from daemon.mqtt_discovery import DiscoveryError, SrvLookup

    try:
        endpoints = SrvLookup().endpoints(domain, tls_only=tls_only)
    except DiscoveryError as error:
        advice = f"check the SRV records (the address is from {source})"
        raise CliError(Exit.UNREACHABLE, str(error), advice) from None
    found = endpoints[0]
    for endpoint in endpoints if len(endpoints) > 1 else ():
        import socket

        try:
            socket.create_connection((endpoint.host, endpoint.port), timeout=_PROBE_TIMEOUT_S).close()
        except OSError:
            continue
        found = endpoint
        break
    return found.tls, found.host, found.port


def check_id(kind: str, text: str) -> str:
    """`text`, if it may be the id of a `kind` (board, job, agent).

    Raises:
        CliError: it may not; with a '+' or '/' in it it would address somebody else.
    """
    if _ID.fullmatch(text) is None:
        raise usage(f"{text!r} is no {kind} id", "use a-z, 0-9 and '-', at most 63 characters")
    return text


def resolve(options: "dict[str, str | None]", environment: "os._Environ[str] | dict[str, str]") -> Target:
    """The server and prefix for these options.

    Raises:
        CliError: an address, prefix or the farm file is wrong.
    """

    def given(name: str) -> str | None:
        return options.get(name) or environment.get(ENVIRONMENT[name]) or None

    url, prefix = given("mqtt"), given("prefix")
    source = "--mqtt" if options.get("mqtt") else ENVIRONMENT["mqtt"]
    if url is None:
        try:
            farm = farm_file.read(environment)
        except farm_file.FarmFileError as error:
            raise usage(str(error), "remove it, or name the server with --mqtt") from None
        source = "the default" if farm is None else "boardhand up on this machine"
        url = DEFAULT_URL if farm is None else farm["url"]
        prefix = prefix or (farm or {}).get("prefix")
    target = Target(url, prefix or DEFAULT_PREFIX, source)
    target.username = given("username")
    target.password_file = given("password_file")
    target.ca_file = given("ca_file")
    target.client_cert = given("client_cert")
    target.client_key = given("client_key")
    if target.password_file and not target.username:
        raise usage("a password file without a user name", "give --username too")
    return target
