"""What all controllers that are reached over HTTP have in their settings, and how secrets are named."""

import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, model_validator

from agent.power.settings import ControllerBase, NonEmpty, TimeoutS

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token, RFC 9110 section 5.6.2."""


def checked_url(url: str) -> str:
    """`url` where it is one for us.

    Raises:
        ValueError: it is not; the text says why, and never shows a password.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r}: it is sent as it stands, so write %20 for a blank, and so on")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as problem:
        raise ValueError(f"not a URL: {problem}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials do not belong into a URL: name them by file or environment variable")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is not http://HOST[:PORT]… or https://HOST[:PORT]…")
    if parts.fragment:
        raise ValueError(f"{url!r}: what stands behind # is never sent")
    return url


def _base_url(url: str) -> str:
    if urlsplit(checked_url(url)).query:
        raise ValueError(f"{url!r}: only the address of the device; its paths are known")
    return url.rstrip("/")


BaseUrl = Annotated[str, AfterValidator(_base_url)]
"""`http://HOST[:PORT][/PATH]` or https, without a slash at its end."""


def at_most_one(what: str, file: Path | None, env: str | None) -> bool:
    """Whether the secret is given.

    Raises:
        ValueError: it is given twice.
    """
    if file is not None and env is not None:
        raise ValueError(f"{what} comes from exactly one of {what}_file and {what}_env")
    return file is not None or env is not None


class HttpSettings(ControllerBase):
    """A controller that is reached over HTTP."""

    verify_tls: bool = True
    """False takes any certificate: whoever sits between may read the password and switch. Better set `ca_file`."""
    ca_file: Path | None = None
    """The authority (or the device's own certificate) that TLS is checked with; the system's own when absent."""
    timeout_s: TimeoutS = 5.0
    """For one question and its whole answer."""

    @model_validator(mode="after")
    def _tls(self) -> Self:
        if self.ca_file is not None and not self.verify_tls:
            raise ValueError("ca_file is of no use with verify_tls = false: give one of them")
        return self


class HttpDeviceSettings(HttpSettings):
    """A device with one address and one account."""

    url: BaseUrl
    username: NonEmpty | None = None
    password_file: Path | None = None
    password_env: NonEmpty | None = None

    @model_validator(mode="after")
    def _account(self) -> Self:
        if at_most_one("password", self.password_file, self.password_env) != (self.username is not None):
            raise ValueError("username needs password_file or password_env, and they need username")
        if self.username is not None and ":" in self.username:
            raise ValueError("HTTP allows no colon in username (RFC 7617, section 2)")
        return self
