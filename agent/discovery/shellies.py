"""Shelly devices at given addresses: `GET /shelly`, which each generation answers without a password.

Source: shelly-api-docs.shelly.cloud, gen2/ComponentsAndServices/Shelly (GetDeviceInfo) and gen1 (/shelly).
"""

import json
from collections.abc import Mapping
from typing import Any, Self

import aiohttp

from agent.discovery import known
from agent.discovery.findings import Candidate, TomlValue, stem_of
from agent.discovery.plugs_by_mqtt import shelly_identity
from agent.discovery.sweep import Address

TIMEOUT_S = 2.0
"""A Shelly on Wi-Fi answers in 0.1 s; an address that nobody has costs this much."""
MAX_ANSWER_BYTES = 4096


class ShellyFinder:
    """Asks addresses one by one. A context manager."""

    def __init__(self, port: int = known.HTTP_PORT, timeout_s: float = TIMEOUT_S) -> None:
        self._port = port
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)  # the sweep has its own limit
        self._session = aiohttp.ClientSession(timeout=self._timeout, connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def look(self, address: Address) -> Candidate | None:
        """The Shelly at `address`; None where there is none, whatever else answers."""
        if self._session is None:
            raise RuntimeError("ShellyFinder is used outside its context")
        host = f"[{address}]" if address.version == 6 else str(address)  # IPv6
        base = f"http://{host}" + (f":{self._port}" if self._port != known.HTTP_PORT else "")
        try:
            async with self._session.get(f"{base}/shelly", allow_redirects=False) as answer:
                said = json.loads(await _body(answer)) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError):
            return None
        return _of(said, base, str(address), self._port) if isinstance(said, Mapping) else None


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """The answer, or its beginning where it is too long for one of a Shelly's."""
    body = b""
    async for part in answer.content.iter_any():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            break
    return body


def _of(said: Mapping[str, Any], base: str, address: str, port: int) -> Candidate | None:
    name, generation = said.get("id"), said.get("gen")
    identities = {known.http(address, port)}
    if not isinstance(name, str) or not isinstance(generation, int):
        if not isinstance(said.get("type"), str) or not isinstance(said.get("mac"), str):
            return None
        about = f"Shelly of the first generation, {said['type']}, at {address}"
        why = "the first generation has another interface: use the driver rest, or Tasmota's firmware"
        return Candidate("shelly", {}, about, identities=frozenset(identities), unwritten=why)
    model = said.get("app") if isinstance(said.get("app"), str) else said.get("model")
    keys: dict[str, TomlValue] = {"driver": "shelly", "url": base}
    hints = []
    if said.get("auth_en") is True:
        hints.append('It asks for its password: add username = "admin" and password_file.')
    return Candidate(
        stem=stem_of(name, "shelly"),
        keys=keys,
        about=f"Shelly {model or name} (generation {generation}), {name}, at {address}",
        hints=tuple(hints),
        identities=frozenset({*identities, shelly_identity(name)}),
    )
