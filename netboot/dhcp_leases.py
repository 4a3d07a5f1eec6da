"""Addresses of the pool: who holds which, until when, and which are left alone. No I/O; times are arguments.

| an address is | until | kept over a restart |
|---|---|---|
| offered | `OFFER_HOLD_S` later, or the client's REQUEST | no |
| leased | the end of the lease, RELEASE, or the client's choice of another server | yes |
| declined: its client found somebody else on it | `DECLINED_HOLD_S` later | yes |
| reserved by the settings | for ever | it stands there |

A client starts at the address that its MAC hashes to, so that most get the same one again even without a stored state.
"""

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

OFFER_HOLD_S = 60.0
"""How long an offered pool address waits for its REQUEST; clients decide within seconds (RFC 2131 section 4.4.1)."""
DECLINED_HOLD_S = 600.0
"""How long an address that somebody else already uses is left alone."""
STATE_VERSION = 1
_NOBODY = ""  # the holder of a declined address


class LeasesStateError(ValueError):
    """The stored leases cannot be read; the message says which. Delete them: clients then get new addresses."""


@dataclass(slots=True)
class _Lease:
    mac: str
    until: float
    offered: bool = False


class LeaseTable:
    """The pool's leases. `pool` is its first and last address, None for no pool; `reserved` are never given.

    `state` goes in and out as plain JSON values. In it, times are seconds of Unix time, as a monotonic clock means
    nothing after a reboot; no restored lease lasts longer than `lease_s`, whatever the wall clock did meanwhile.

    Raises:
        LeasesStateError: at construction, when the state is of another shape.
    """

    def __init__(
        self,
        pool: tuple[IPv4Address, IPv4Address] | None,
        reserved: Collection[IPv4Address] = (),
        state: Mapping[str, object] | None = None,
        *,
        now: float = 0.0,
        wall_s: float = 0.0,
        lease_s: float = 0.0,
    ) -> None:
        self._pool = pool
        self._reserved = frozenset(reserved)
        self._leases: dict[IPv4Address, _Lease] = {}
        self._by_mac: dict[str, IPv4Address] = {}
        self.revision = 0
        """Rises whenever `state` would say something new: then it is time to store it."""
        for address, mac, until in _read_state(state):
            left = min(until - wall_s, max(lease_s, DECLINED_HOLD_S))
            if left > 0 and self._may_give(address):
                self._set(address, _Lease(mac, now + left))

    def state(self, now: float, wall_s: float) -> dict[str, object]:
        """What a new object needs to go on; offers are left out."""
        return {
            "version": STATE_VERSION,
            "leases": [
                {"address": str(address), "mac": lease.mac, "until": round(wall_s + lease.until - now)}
                for address, lease in sorted(self._leases.items())
                if not lease.offered and lease.until > now
            ],
        }

    def __contains__(self, address: IPv4Address) -> bool:
        return self._pool is not None and self._pool[0] <= address <= self._pool[1]

    def holder(self, address: IPv4Address, now: float) -> str | None:
        """The MAC address of who holds `address`; None for nobody."""
        lease = self._leases.get(address)
        return lease.mac or None if lease is not None and lease.until > now else None

    def held_by(self, mac: str, now: float) -> IPv4Address | None:
        """The address that `mac` holds."""
        address = self._by_mac.get(mac)
        return address if address is not None and self._leases[address].until > now else None

    def choose(self, mac: str, wanted: IPv4Address | None, now: float) -> IPv4Address | None:
        """An address for `mac`: the one it holds, else `wanted` where it is free, else a free one; None where the pool
        is used up."""
        held = self.held_by(mac, now)
        if held is not None:
            return held
        if wanted is not None and self._is_free(wanted, now):
            return wanted
        if self._pool is None:
            return None
        size = int(self._pool[1]) - int(self._pool[0]) + 1
        start = zlib.crc32(mac.encode()) % size
        for step in range(size):
            address = self._pool[0] + (start + step) % size
            if self._is_free(address, now):
                return address
        return None

    def offer(self, address: IPv4Address, mac: str, now: float) -> None:
        """Keep a free address, or the client's own, for its REQUEST; an offer does not shorten a lease."""
        lease = self._leases.get(address)
        if lease is None or lease.mac != mac or lease.until < now + OFFER_HOLD_S:
            firm = lease is not None and lease.mac == mac and not lease.offered and lease.until > now
            self._set(address, _Lease(mac, now + OFFER_HOLD_S, offered=not firm))

    def lease(self, address: IPv4Address, mac: str, until: float) -> None:
        """Give `address` to `mac`."""
        lease = self._leases.get(address)
        if lease is not None and lease.mac == mac and not lease.offered:
            until = max(until, lease.until)
        self._set(address, _Lease(mac, until))
        self.revision += 1

    def release(self, address: IPv4Address, mac: str) -> bool:
        """The client gives its address back. False: it is not its own."""
        lease = self._leases.get(address)
        if lease is None or lease.mac != mac or mac == _NOBODY:
            return False
        self._drop(address)
        self.revision += 1
        return True

    def decline(self, address: IPv4Address, mac: str, now: float) -> bool:
        """Somebody else uses `mac`'s address. False: it is not its own."""
        if not self.release(address, mac):
            return False
        self._set(address, _Lease(_NOBODY, now + DECLINED_HOLD_S))
        return True

    def in_use(self, address: IPv4Address, now: float) -> None:
        """Somebody without a lease was seen on a pool address: whoever held it must take another one."""
        if address not in self or address in self._reserved:
            return
        fresh = self._leases.get(address)
        if fresh is not None and fresh.mac == _NOBODY and fresh.until > now + DECLINED_HOLD_S / 2:
            return  # known; a chatty station must not make us store with every frame
        self._set(address, _Lease(_NOBODY, now + DECLINED_HOLD_S))
        self.revision += 1

    def forget(self, mac: str) -> None:
        """The client took another server's offer."""
        address = self._by_mac.get(mac)
        if address is not None:
            self.release(address, mac)

    def _may_give(self, address: IPv4Address) -> bool:
        return address in self and address not in self._reserved

    def _is_free(self, address: IPv4Address, now: float) -> bool:
        lease = self._leases.get(address)
        return self._may_give(address) and (lease is None or lease.until <= now)

    def _set(self, address: IPv4Address, lease: _Lease) -> None:
        self._drop(address)
        if lease.mac != _NOBODY:
            former = self._by_mac.get(lease.mac)
            if former is not None:
                self._drop(former)  # one address for each client
            self._by_mac[lease.mac] = address
        self._leases[address] = lease

    def _drop(self, address: IPv4Address) -> None:
        lease = self._leases.pop(address, None)
        if lease is not None and self._by_mac.get(lease.mac) == address:
            del self._by_mac[lease.mac]


def _read_state(state: Mapping[str, object] | None) -> list[tuple[IPv4Address, str, float]]:
    if not state:
        return []
    leases = state.get("leases")
    if state.get("version") != STATE_VERSION or not isinstance(leases, list):
        raise LeasesStateError("DHCP leases: the stored state is of another version")
    found = []
    for entry in leases:
        if not isinstance(entry, dict):
            raise LeasesStateError("DHCP leases: an entry is no object")
        address, mac, until = (entry.get(key) for key in ("address", "mac", "until"))
        if not isinstance(mac, str) or isinstance(until, bool) or not isinstance(until, int | float):
            raise LeasesStateError(f"DHCP lease of {address}: mac must be a text and until a number")
        try:
            found.append((IPv4Address(address), mac, float(until)))
        except (AddressValueError, OverflowError) as error:
            raise LeasesStateError(f"DHCP lease of {address}: not an address and a time") from error
    return found
