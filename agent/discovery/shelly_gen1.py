"""Shelly devices of the first generation, as a `rest` controller. No I/O: what to ask, and what answers mean.

Source: shelly-api-docs.shelly.cloud/gen1: /shelly, /status, /settings (mode of Shelly 2 and 2.5), /relay/N, /meter/N.
What a device is, is asked of it where it needs no password; where it does, its type says it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from agent.discovery.findings import Candidate, TomlValue, stem_of

RELAYS: Mapping[str, int] = MappingProxyType({
    "SHSW-1": 1, "SHSW-L": 1, "SHSW-PM": 1, "SHSW-21": 2, "SHSW-25": 2, "SHSW-44": 4, "SHPLG-1": 1, "SHPLG2-1": 1,
    "SHPLG-S": 1, "SHPLG-U1": 1, "SHUNI-1": 2, "SHEM": 1, "SHEM-3": 1,
})  # fmt: skip
"""Type: how many relays."""
METERED = frozenset({"SHSW-PM", "SHSW-25", "SHSW-44", "SHPLG-1", "SHPLG2-1", "SHPLG-S", "SHPLG-U1"})
"""One meter for each relay. Shelly 1 says what its owner told it that it draws; Shelly 2 has one meter for both."""
ROLLERS = frozenset({"SHSW-21", "SHSW-25"})
"""They can drive a roller shutter instead: then their relays are not to be switched one by one."""
MAX_RELAYS = 8
STATUS, SETTINGS = "/status", "/settings"
RELAY_MODE = "relay"


@dataclass(frozen=True, slots=True)
class OldShelly:
    """What `GET /shelly` said. `locked`: everything else needs the password."""

    type: str
    mac: str
    locked: bool

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self | None:
        """None where it is no Shelly of the first generation, which says its type and MAC address, and no `gen`."""
        kind, mac = said.get("type"), said.get("mac")
        if "gen" in said or not isinstance(kind, str) or not isinstance(mac, str):
            return None
        return cls(kind, mac, said.get("auth") is True)

    def questions(self) -> tuple[str, ...]:
        """Paths to GET. None of them switches anything."""
        if self.locked:
            return ()
        return (STATUS, SETTINGS) if self.type in ROLLERS else (STATUS,)

    def candidate(
        self, base: str, address: str, answers: Mapping[str, Mapping[str, Any] | None], identities: frozenset[str]
    ) -> Candidate:
        """The controller, by the answers to `questions`; `base` is its URL without a path."""
        about = f"Shelly of the first generation, {self.type}, at {address}"
        stem = stem_of(f"shelly-{self.mac[-6:]}", "shelly")
        status, settings = answers.get(STATUS), answers.get(SETTINGS) or {}
        count = RELAYS.get(self.type, 0) if self.locked else _relays(status)
        why, hints = "", []
        if self.locked:
            hints.append('It asks for its password: add auth = "basic", username = "admin" and password_file.')
            if self.type in ROLLERS:
                hints.append("It must be set to relay mode.")
            if count == 0:
                why = "it asks for its password, and whether a device of this type has relays is not known"
        elif status is None:
            why = "it did not tell its status; look again"
        elif count == 0:
            why = "it has no relay"
        elif self.type in ROLLERS and settings.get("mode") != RELAY_MODE:
            why = "it drives a roller shutter; its relays can be switched when it is set to relay mode"
        if why:
            return Candidate(stem, {}, about, identities=identities, unwritten=why)
        outlets = tuple(map(str, range(count)))
        keys = _keys(base, outlets, metered=self.type in METERED)
        return Candidate(stem, keys, about, outlets, tuple(hints), identities)


def _relays(status: Mapping[str, Any] | None) -> int:
    relays = (status or {}).get("relays")
    if not isinstance(relays, list):
        return 0
    return sum(isinstance(relay, Mapping) and isinstance(relay.get("ison"), bool) for relay in relays[:MAX_RELAYS])


def _keys(base: str, outlets: tuple[str, ...], *, metered: bool) -> dict[str, TomlValue]:
    keys: dict[str, TomlValue] = {
        "driver": "rest",
        "on": {"url": f"{base}/relay/{{outlet}}?turn=on"},
        "off": {"url": f"{base}/relay/{{outlet}}?turn=off"},
        "state": {"url": f"{base}/relay/{{outlet}}", "pointer": "/ison"},
    }
    if metered:
        keys["watts"] = {"url": f"{base}/meter/{{outlet}}", "pointer": "/power"}
    return keys | {"outlets": outlets}
