"""How often a client may ask by DHCP before it is not answered: token buckets, no clock of their own.

A boot program asks some ten times within a minute at most (iPXE, UEFI: four DISCOVERs, then a REQUEST); one in a loop
asks thousands of times. Unknown clients share a further bucket, as a flood may use a new MAC address for each frame.
"""

from collections import OrderedDict
from dataclasses import dataclass

MAX_CLIENTS = 4096
"""Beyond so many, the one not heard for longest is forgotten; its bucket is then full again."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` messages at once, then `per_s` a second."""

    burst: float
    per_s: float


CLIENT_RATE = Rate(20, 2)
STRANGERS_RATE = Rate(400, 100)
"""200 unknown boards that power up at once are served; a flood costs 100 answers a second."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    told: bool = False


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether to answer; `newly_refused` names the bucket ("" for all strangers) when this is its first refusal."""

    allowed: bool
    newly_refused: str | None = None


ALLOWED = Admission(allowed=True)


class ClientRates:
    """One bucket for each client, and one for all unknown ones."""

    def __init__(self, client: Rate = CLIENT_RATE, strangers: Rate = STRANGERS_RATE) -> None:
        self._client = client
        self._strangers_rate = strangers
        self._strangers = _Bucket(strangers.burst, 0.0)
        self._clients: OrderedDict[str, _Bucket] = OrderedDict()

    def client(self, mac: str, now: float) -> Admission:
        """Whether one more message of `mac` is to be read at `now` (monotonic, seconds)."""
        bucket = self._clients.get(mac)
        if bucket is None:
            bucket = self._clients[mac] = _Bucket(self._client.burst, now)
            if len(self._clients) > MAX_CLIENTS:
                self._clients.popitem(last=False)
        self._clients.move_to_end(mac)
        return ALLOWED if _take(bucket, self._client, now) else _refusal(bucket, mac)

    def stranger(self, now: float) -> Admission:
        """Whether one more message of an unknown client is to be answered at `now`."""
        if _take(self._strangers, self._strangers_rate, now):
            return ALLOWED
        return _refusal(self._strangers, "")


def _take(bucket: _Bucket, rate: Rate, now: float) -> bool:
    bucket.tokens = min(rate.burst, bucket.tokens + max(0.0, now - bucket.at) * rate.per_s)
    bucket.at = now
    if bucket.tokens < 1:
        return False
    bucket.tokens -= 1
    if bucket.tokens > rate.burst / 2:
        bucket.told = False  # it has rested
    return True


def _refusal(bucket: _Bucket, name: str) -> Admission:
    newly = None if bucket.told else name
    bucket.told = True
    return Admission(allowed=False, newly_refused=newly)
