"""Who may do what: tokens with roles, and the browser's sessions. No I/O; `now_s` is monotonic."""

import hashlib
import re
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

TOKEN_BYTES = 32
"""256 bits of randomness need no slow hash: nobody guesses them."""
SESSION_S = 12 * 3600.0
"""A day's work. A browser left open longer asks for its token again."""
MOST_SESSIONS = 10_000
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Role(StrEnum):
    """What a token is good for. Each may do what those before it may."""

    READER = "reader"
    """Looks."""
    USER = "user"
    """Hands in jobs, reserves boards, and switches those that he has reserved."""
    OPERATOR = "operator"
    """Switches any board that nobody holds, cancels anybody's job, takes boards out of work and back."""
    ADMIN = "admin"
    """May force what a lease stands against."""

    def covers(self, other: "Role") -> bool:
        """Whether this role may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who showed a token. The name stands in leases and jobs."""

    name: str
    role: Role


class TokensError(ValueError):
    """The tokens file cannot be read; the message names the entry and says what to do."""


def digest(token: str) -> str:
    """What is stored of a token: SHA-256 in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """A token that nobody else has."""
    return "bh_" + secrets.token_urlsafe(TOKEN_BYTES)


def read_tokens(text: str) -> dict[str, Person]:
    """People by their token's digest, from the text of the tokens file.

    Raises:
        TokensError: it is no TOML, or an entry lacks something.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TokensError(f"no TOML: {error}") from None
    people: dict[str, Person] = {}
    for name, entry in tables.items():
        if not NAME.fullmatch(name):
            raise TokensError(f"[{name}]: a name is made of a-z, 0-9 and '-', at most 63 characters")
        if not isinstance(entry, Mapping):
            raise TokensError(f"{name}: a table with role and sha256 is needed")
        role, known = entry.get("role"), ", ".join(Role)
        if role not in set(Role):
            raise TokensError(f"[{name}] role: {role!r} is none; known are {known}")
        stored = entry.get("sha256")
        if not isinstance(stored, str) or not _DIGEST.fullmatch(stored):
            raise TokensError(f"[{name}] sha256: 64 hexadecimal digits are needed; make them with 'boardhand token'")
        if stored in people:
            raise TokensError(f"[{name}] sha256: the same token as {people[stored].name}'s")
        people[stored] = Person(name, Role(role))
    return people


@dataclass(slots=True)
class _Session:
    token_digest: str
    ends_s: float


class Door:
    """Knows tokens and sessions."""

    def __init__(self, people: Mapping[str, Person] | None = None) -> None:
        self._people = dict(people or {})
        self._sessions: dict[str, _Session] = {}

    def change(self, people: Mapping[str, Person]) -> None:
        """Take other tokens. A session whose token is gone ends."""
        self._people = dict(people)
        gone = [key for key, session in self._sessions.items() if session.token_digest not in self._people]
        for key in gone:
            del self._sessions[key]

    def by_token(self, token: str) -> Person | None:
        """Whose token that is."""
        return self._people.get(digest(token))

    def open_session(self, token: str, now_s: float) -> str | None:
        """A new session's secret for whoever shows `token`; None where the token is nobody's."""
        found = digest(token)
        if found not in self._people:
            return None
        for key in [key for key, session in self._sessions.items() if session.ends_s <= now_s]:
            del self._sessions[key]
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        secret = secrets.token_urlsafe(TOKEN_BYTES)
        self._sessions[digest(secret)] = _Session(found, now_s + SESSION_S)
        return secret

    def by_session(self, secret: str, now_s: float) -> Person | None:
        """Whose session that is."""
        session = self._sessions.get(digest(secret))
        if session is None or session.ends_s <= now_s:
            return None
        return self._people.get(session.token_digest)

    def close_session(self, secret: str) -> None:
        """End a session; one that is not there has ended."""
        self._sessions.pop(digest(secret), None)
