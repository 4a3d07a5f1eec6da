"""How virtual plugs ask who is there: HTTP basic (RFC 7617) and digest (RFC 7616), from the server's side."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


@dataclass
class LoginGate:
    """Who may do what.

    Attributes:
        scheme: how the device asks; `none` lets everybody in.
        accounts: name -> password.
        refused: how many requests came with wrong credentials.
    """

    scheme: Literal["none", "basic", "md5", "sha-256"] = "none"
    accounts: Mapping[str, str] = field(default_factory=dict)
    realm: str = "virtual plug"
    refused: int = 0
    _nonces: set[str] = field(default_factory=set)

    def forget_nonces(self) -> None:
        """As a device that was restarted: what a client remembers is stale."""
        self._nonces.clear()

    def user(self, authorization: str, method: str, uri: str) -> str | None:
        """Who asks; None for somebody who is to be answered with `challenge`."""
        if self.scheme == "none":
            return ""
        kind, _, rest = authorization.partition(" ")
        if not kind:
            return None
        who = None
        if kind.lower() == "basic" and self.scheme == "basic":
            who = self._basic(rest)
        elif kind.lower() == "digest" and self.scheme in {"md5", "sha-256"}:
            who = self._digest(rest, method, uri)
        self.refused += who is None
        return who

    def challenge(self) -> str:
        """The value of WWW-Authenticate."""
        if self.scheme == "basic":
            return f'Basic realm="{self.realm}"'
        nonce = secrets.token_hex(8)
        self._nonces.add(nonce)
        return f'Digest qop="auth", realm="{self.realm}", nonce="{nonce}", algorithm={self.scheme.upper()}'

    def _basic(self, rest: str) -> str | None:
        try:
            name, _, password = base64.b64decode(rest, validate=True).decode().partition(":")
        except ValueError:
            return None
        return name if self._right(name, password) else None

    def _right(self, name: str, password: str) -> bool:
        return name in self.accounts and hmac.compare_digest(self.accounts[name].encode(), password.encode())

    def _digest(self, rest: str, method: str, uri: str) -> str | None:
        given = {match[1]: match[2] if match[2] is not None else match[3] for match in PARAMETER.finditer(rest)}
        name = given.get("username", "")
        if name not in self.accounts or given.get("nonce") not in self._nonces or given.get("uri") != uri:
            return None

        def digest(text: str) -> str:
            return HASHES[self.scheme.upper()](text.encode()).hexdigest()

        who = digest(f"{name}:{self.realm}:{self.accounts[name]}")
        what = digest(f"{method}:{uri}")
        parts = (who, given["nonce"], given.get("nc", ""), given.get("cnonce", ""), given.get("qop", ""), what)
        return name if hmac.compare_digest(digest(":".join(parts)), given.get("response", "")) else None
