"""Shelly devices at given addresses: `GET /shelly`, which each generation answers without a password. What is of the
first generation is asked on, see `agent.discovery.shelly_gen1`.

Source: shelly-api-docs.shelly.cloud, gen2/ComponentsAndServices/Shelly (GetDeviceInfo) and gen1 (/shelly).
"""

import json
from collections.abc import Mapping
from typing import Any, Self

import aiohttp

from agent.discovery import known
from agent.discovery.findings import Candidate, TomlValue, stem_of
from agent.discovery.plugs_by_mqtt import shelly_identity
from agent.discovery.shelly_gen1 import OldShelly
from agent.discovery.sweep import Address

TIMEOUT_S = 2.0
"""A Shelly on Wi-Fi answers in 0.1 s; an address that nobody has costs this much."""
MAX_ANSWER_BYTES = 16384
"""Settings of a Shelly 4 Pro have 6,000."""


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
        host = f"[{address}]" if address.version == 6 else str(address)  # IPv6
        base = f"http://{host}" + (f":{self._port}" if self._port != known.HTTP_PORT else "")
        said = await self._get(f"{base}/shelly")
        if said is None:
            return None
        identities = frozenset({known.http(str(address), self._port)})
        device = OldShelly.of(said)
        if device is None:
            return _of(said, base, str(address), identities)
        answers = {path: await self._get(f"{base}{path}") for path in device.questions()}
        return device.candidate(base, str(address), answers, identities)

    async def _get(self, url: str) -> Mapping[str, Any] | None:
        """The JSON object that is there; None for whatever else."""
        if self._session is None:
            raise RuntimeError("ShellyFinder is used outside its context")
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                said = json.loads(await _body(answer)) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError):
            return None
        return said if isinstance(said, Mapping) else None


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """The answer, or its beginning where it is too long for one of a Shelly's."""
    body = b""
    async for part in answer.content.iter_any():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            break
    return body


def _of(said: Mapping[str, Any], base: str, address: str, identities: frozenset[str]) -> Candidate | None:
    name, generation = said.get("id"), said.get("gen")
    if not isinstance(name, str) or not isinstance(generation, int):
        return None
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
