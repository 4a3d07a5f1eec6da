"""How the MQTT server is reached: the `[mqtt]` table of every settings file."""

import re
import ssl
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from daemon.mqtt_discovery import Endpoint, SrvLookup
from daemon.tls import trusting
from wire.names import Prefix

PLAIN_PORT = 1883
TLS_PORT = 8883
"""Both as registered with IANA for mqtt and secure-mqtt."""
SCHEMES = ("mqtt", "mqtts", "mqtt+srv", "mqtts+srv")
"""The last two name a domain, whose SRV records name the server."""
_DOMAIN = re.compile(r"(?=.{1,230}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
"""Short enough to take `_secure-mqtt._tcp.` before it (RFC 1035, section 3.1)."""


class MqttSettings(BaseModel):
    """The MQTT server and how we show who we are. Passwords and keys are named by file, never written here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = "mqtt://127.0.0.1:1883"
    """`mqtt://HOST[:PORT]`, or `mqtts://HOST[:PORT]` for TLS. `mqtt+srv://DOMAIN` finds the server by DNS, with TLS
    where there is one that speaks it; `mqtts+srv://DOMAIN` takes no other."""
    prefix: Prefix = "boardhand"
    username: str | None = None
    password_file: Path | None = None
    """A file with the password on its first line."""
    ca_file: Path | None = None
    """The authority that signed the server's certificate; the system's own when absent."""
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    keepalive_s: int = Field(default=15, ge=2, le=3600)
    """A dead host's will comes after 1.5 times this (MQTT 3.1.1, section 3.1.2.10)."""

    @field_validator("url")
    @classmethod
    def _url_is_ours(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise ValueError(f"{url!r} is not mqtt://HOST[:PORT], mqtts://HOST[:PORT], or mqtt+srv://DOMAIN")
        if parts.username or parts.password:
            raise ValueError("credentials do not belong into the URL: use username and password_file")
        try:
            _ = parts.port
        except ValueError as error:
            raise ValueError(f"{url!r}: {error}") from None
        if parts.scheme.endswith("+srv"):
            if parts.netloc != parts.netloc.rpartition(":")[2] or parts.path.strip("/"):
                raise ValueError(f"{url!r}: a domain has no port, SRV records say it: write {parts.scheme}://DOMAIN")
            if _DOMAIN.fullmatch(parts.hostname) is None:
                raise ValueError(f"{url!r}: {parts.hostname!r} is no domain name")
        return url

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file without username: give both or neither")
        if (self.client_cert_file is None) != (self.client_key_file is None):
            raise ValueError("client_cert_file and client_key_file belong together: give both or neither")
        if not self.tls and (self.ca_file or self.client_cert_file):
            raise ValueError("ca_file and client_cert_file need TLS: write the url as mqtts://… or mqtts+srv://…")
        for name in ("password_file", "ca_file", "client_cert_file", "client_key_file"):
            path: Path | None = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name}: {path} is not there, or is no file")
        return self

    @property
    def tls(self) -> bool:
        """Whether nothing but TLS will do."""
        return urlsplit(self.url).scheme in {"mqtts", "mqtts+srv"}

    @property
    def by_srv(self) -> bool:
        """Whether `host` is a domain whose SRV records name the server."""
        return urlsplit(self.url).scheme.endswith("+srv")

    @property
    def host(self) -> str:
        """The server, or the domain to look it up in (`by_srv`)."""
        return (urlsplit(self.url).hostname or "").removesuffix("." if self.by_srv else "")

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or (TLS_PORT if self.tls else PLAIN_PORT)

    def endpoints(self, lookup: SrvLookup | None = None) -> list[Endpoint]:
        """Where to try to connect, in turn. Blocks while DNS is asked, which `mqtt://HOST` and `mqtts://HOST` need
        not.

        Raises:
            DiscoveryError: DNS names no server.
        """
        if not self.by_srv:
            return [Endpoint(self.host, self.port, self.tls)]
        return (lookup or SrvLookup()).endpoints(self.host, tls_only=self.tls)

    def read_password(self) -> str | None:
        """The password from its file, or None where none is set.

        Raises:
            OSError: the file cannot be read.
        """
        if self.password_file is None:
            return None
        return self.password_file.read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")

    def tls_context(self, *, tls: bool | None = None) -> ssl.SSLContext | None:
        """The TLS context for `mqtts`, else None; `tls` overrides, for a server that was found by DNS. The server's
        certificate and name are always checked.

        Raises:
            OSError: a certificate or key file cannot be read or used (`ssl.SSLError` is one).
        """
        if not (self.tls if tls is None else tls):
            return None
        context = trusting(self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.client_cert_file is not None:
            context.load_cert_chain(self.client_cert_file, self.client_key_file)
        return context
