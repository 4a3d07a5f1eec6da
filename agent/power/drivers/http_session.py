"""HTTP for drivers: one aiohttp session per agent, and for each controller its account, its TLS and its errors.

Every request opens its own connection and closes it: small devices serve few connections at a time (a Shelly six) and
drop idle ones without a word, and a request that aiohttp would repeat on a fresh connection might switch twice.
Redirects are not followed: what was meant for a device goes nowhere else, and no password with it.
"""

import asyncio
import base64
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import aiohttp
from yarl import URL

from agent.power.driver_kind import DriverContext
from agent.power.drivers.secret_source import read_secret
from agent.power.errors import AuthenticationError, ConfigurationError, PowerError, RefusedError, UnreachableError
from agent.power.kinds.http_settings import HttpDeviceSettings, HttpSettings
from daemon.tls import trusting

MAX_REPLY_BYTES = 1 << 20
"""A thousand times what a plug says; more comes from something else, and would fill the memory."""
GLIMPSE_CHARACTERS = 80
OUTLET_NUMBER = re.compile(r"0|[1-9][0-9]{0,3}")
MAX_OUTLET = 1023
"""No plug has more; a longer number is a typo."""
DNS_CACHE_S = 60
"""A device that was given another address is found again after this; asked each time, a slow name server would hold
the few threads that all controllers share."""
CALL_MARGIN_S = 1.0
"""For a name server's answer to arrive after the timeout, so that our own error wins over the queue's."""
PASSING = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses that say "not now" (RFC 9110; 425 RFC 8470; 429 RFC 6585): nothing was done, and asking again may help."""


@dataclass(frozen=True, slots=True)
class Login:
    """How to show who we are."""

    scheme: Literal["none", "basic", "digest", "bearer"] = "none"
    username: str = ""
    secret: str = field(default="", repr=False)


NOBODY = Login()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a device answered."""

    status: int
    body: bytes

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    def text(self) -> str:
        return self.body.decode("utf-8", errors="replace").strip()

    def glimpse(self) -> str:
        """The beginning of the body, on one line, for an error."""
        text = " ".join(self.text().split())
        return repr(text[:GLIMPSE_CHARACTERS]) if text else "nothing"


class SharedSession:
    """The one aiohttp session of an agent; opened by its first request."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def get(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True, ttl_dns_cache=DNS_CACHE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "boardhand"},
                trust_env=False,  # a proxy for the web is none for the lab, and would learn the passwords
            )
        return self._session

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class HttpDevice:
    """One controller's way to its device."""

    def __init__(self, name: str, settings: HttpSettings, context: DriverContext) -> None:
        self.name = name
        self._settings = settings
        self._shared: SharedSession = context.share(SharedSession, SharedSession)
        self._tls: ssl.SSLContext | bool | None = None
        self._digests: dict[tuple[URL, Login], aiohttp.DigestAuthMiddleware] = {}

    async def request(
        self,
        method: str,
        url: str,
        *,
        outlet: str | None,
        login: Login = NOBODY,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """Ask once.

        Raises:
            AuthenticationError: the device does not accept who we are.
            ConfigurationError: the address, TLS or the settings are wrong; or it sends us elsewhere.
            UnreachableError: no answer in time, or one that was cut off.
        """
        where = _without_query(url)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                reply, location = await self._ask(method, URL(url, encoded=True), login, headers or {}, body)
        except TimeoutError:
            raise UnreachableError(
                f"{where} did not answer within {self._settings.timeout_s:g} s",
                controller=self.name,
                outlet=outlet,
                do="check its power and its network",
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise self._translated(problem, where, outlet) from problem
        if reply.status in {401, 403}:
            raise self._not_let_in(reply, where, outlet, login)
        if 300 <= reply.status < 400:
            raise ConfigurationError(
                f"{where} sends us on to {_without_query(location) or 'nowhere'}",
                controller=self.name,
                outlet=outlet,
                do="write the address that it names into url, if it is the device's",
            )
        return reply

    async def _ask(
        self, method: str, url: URL, login: Login, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[Reply, str]:
        if login.scheme == "basic":  # RFC 7617
            word = base64.b64encode(f"{login.username}:{login.secret}".encode()).decode()
            headers = {**headers, "Authorization": f"Basic {word}"}
        elif login.scheme == "bearer":  # RFC 6750
            headers = {**headers, "Authorization": f"Bearer {login.secret}"}
        async with self._shared.get().request(
            method,
            url,
            data=body,
            headers=headers,
            middlewares=(self._digest(url, login),) if login.scheme == "digest" else (),
            ssl=self._tls_of(),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
        ) as response:
            received = bytearray()
            async for chunk in response.content.iter_any():
                received += chunk
                if len(received) > MAX_REPLY_BYTES:
                    raise ValueError(f"it answers with more than {MAX_REPLY_BYTES} bytes")
            return Reply(response.status, bytes(received)), response.headers.get("Location", "")

    def _digest(self, url: URL, login: Login) -> aiohttp.DigestAuthMiddleware:
        """The middleware keeps to the origin that it saw first, and knows the device's last nonce."""
        key = (url.origin(), login)
        if key not in self._digests:
            if len(self._digests) >= 16:  # passwords that were changed on disk while we run
                self._digests.clear()
            self._digests[key] = aiohttp.DigestAuthMiddleware(login.username, login.secret)
        return self._digests[key]

    def _tls_of(self) -> ssl.SSLContext | bool:
        if self._tls is None:
            if not self._settings.verify_tls:
                self._tls = False
            elif self._settings.ca_file is None:
                self._tls = True
            else:
                try:
                    self._tls = trusting(self._settings.ca_file)
                except OSError as problem:
                    raise ConfigurationError(
                        f"ca_file {self._settings.ca_file} cannot be used: {problem.strerror or problem}",
                        controller=self.name,
                        do="name a PEM file with the certificate of the authority",
                    ) from problem
        return self._tls

    def outlet_number(self, outlet: str, *, first: int) -> int:
        """The outlet as a number, counted from `first`.

        Raises:
            ConfigurationError: it is none.
        """
        if OUTLET_NUMBER.fullmatch(outlet) and first <= int(outlet) <= MAX_OUTLET:
            return int(outlet)
        raise ConfigurationError(
            f"an outlet of this device is a number from {first}",
            controller=self.name,
            outlet=outlet,
            do="correct the feed",
        )

    # --- answers -------------------------------------------------------------------------------------------------

    def json(self, reply: Reply, outlet: str | None) -> Any:
        """The reply's JSON.

        Raises:
            ConfigurationError: it is something else.
        """
        try:
            return json.loads(reply.body)
        except (ValueError, RecursionError):
            raise ConfigurationError(
                f"answered {reply.glimpse()} where JSON was expected",
                controller=self.name,
                outlet=outlet,
                do="check url and driver: it may be another kind of device, or its API is switched off",
            ) from None

    def wrong_shape(self, what: str, outlet: str | None) -> ConfigurationError:
        """The error for JSON that is not this device's."""
        return ConfigurationError(
            f"its answer {what}",
            controller=self.name,
            outlet=outlet,
            do="check driver: it may be another kind of device",
        )

    def refuse(self, reply: Reply, what: str, outlet: str | None, *, do: str = "") -> NoReturn:
        """Raise the error for a status that is not a good one: for what passes, for a path it has not, or for no."""
        text = f"{what} was answered with HTTP {reply.status}: {reply.glimpse()}"
        kind: type[PowerError] = RefusedError
        if reply.status in PASSING:
            kind = UnreachableError
        elif reply.status in {404, 405, 410}:
            kind = ConfigurationError
            do = do or "check outlet, url and driver"
        raise kind(text, controller=self.name, outlet=outlet, do=do or "look at the device")

    def _translated(self, problem: Exception, where: str, outlet: str | None) -> PowerError:
        if isinstance(problem, aiohttp.ClientSSLError):
            return ConfigurationError(
                f"{where}: no TLS: {_reason(problem)}",
                controller=self.name,
                outlet=outlet,
                do="set ca_file to the certificate of its authority, and use the name that the certificate bears",
            )
        if isinstance(problem, aiohttp.ClientResponseError):
            return ConfigurationError(
                f"{where} answers something else than HTTP",
                controller=self.name,
                outlet=outlet,
                do="check url: http or https, and the port",
            )
        if isinstance(problem, aiohttp.ClientError | OSError) and not isinstance(problem, aiohttp.InvalidURL):
            return UnreachableError(
                f"{where} cannot be reached: {_reason(problem)}",
                controller=self.name,
                outlet=outlet,
                do="check its power, its network and url",
            )
        return ConfigurationError(
            f"{where} cannot be asked: {_reason(problem)}", controller=self.name, outlet=outlet, do="correct the table"
        )

    def _not_let_in(self, reply: Reply, where: str, outlet: str | None, login: Login) -> AuthenticationError:
        if login.scheme == "none":
            problem, do = "wants to know who asks", "give an account"
        elif reply.status == 403:
            problem, do = f"does not allow this to {login.username or 'us'}", "let the account switch outlets"
        else:
            problem, do = f"refuses {login.username or 'the token'} or its secret", "correct the account"
        return AuthenticationError(
            f"{where} {problem} (HTTP {reply.status})", controller=self.name, outlet=outlet, do=do
        )


def account(name: str, settings: HttpDeviceSettings, scheme: Literal["basic", "digest"]) -> Login:
    """The account of a device's settings, its password read now.

    Raises:
        ConfigurationError: the password cannot be read.
    """
    if settings.username is None:
        return NOBODY
    secret = read_secret(name, "password", settings.password_file, settings.password_env)
    return Login(scheme, settings.username, secret)


def _without_query(url: str) -> str:
    """For error texts: a query may hold a key."""
    return url.partition("?")[0].partition("#")[0]


def _reason(problem: Exception) -> str:
    cause = problem.os_error if isinstance(problem, aiohttp.ClientConnectorError) else problem
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {cause.verify_message}"
    if isinstance(cause, OSError) and cause.strerror:
        return str(cause.strerror)
    return " ".join(str(cause).split())[:200] or type(cause).__name__
