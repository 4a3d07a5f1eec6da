"""What one board can take, and how often one client may ask: a bucket of tokens per address, so that a flood from one
disturbs no other. The worker imports this: no dataclasses."""

from typing import NamedTuple

MAX_CLIENTS = 4096  # a board network has hundreds; forged senders must not fill the memory
BURST = 90
"""Requests at once: GRUB fetches some 60 modules, a Raspberry Pi tries some 40 names."""


class Limits(NamedTuple):
    """What one board can take. None leaves the worker's own: `max_window` blocks per ACK, `max_block_bytes`,
    `requests_per_s` (0: without limit). `rollover` is the block number after 65535, 0 for nearly all; None: the board
    cannot count beyond (Raspberry Pi, rpi-eeprom issue 720), and a file that is too long for it is warned of."""

    max_window: int | None = None
    max_block_bytes: int | None = None
    rollover: int | None = 0
    requests_per_s: int | None = None


NO_LIMITS = Limits()


class RequestLimits:
    """`per_s` requests a second for each client beyond `BURST`; 0: without limit."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._clients: dict[str, tuple[float, float]] = {}
        self._own: dict[str, int] = {}

    def admit(self, client: str, now: float) -> bool:
        """Whether a request of `client` may be looked at; `now` is monotonic seconds."""
        per_s = self._own.get(client, self._per_s) if self._own else self._per_s
        if not per_s:
            return True
        since, left = self._clients.get(client, (now, float(BURST)))
        left = min(BURST, left + (now - since) * per_s)
        if left < 1.0:
            self._clients[client] = (now, left)
            return False
        if len(self._clients) >= MAX_CLIENTS and client not in self._clients:
            self._prune(now)
        self._clients[client] = (now, left - 1.0)
        return True

    def set_rate(self, client: str, per_s: int) -> None:
        """The rate of one client from now on, as its profile has it; 0: without limit."""
        self._own.pop(client, None)
        if per_s != self._per_s and per_s >= 0:
            if len(self._own) >= MAX_CLIENTS:
                del self._own[next(iter(self._own))]
            self._own[client] = per_s

    def _prune(self, now: float) -> None:
        """Forget those whose bucket is full again, or the older half."""
        full_s = BURST / (self._per_s or 1)
        kept = [(client, bucket) for client, bucket in self._clients.items() if now - bucket[0] < full_s]
        kept.sort(key=lambda item: item[1][0], reverse=True)
        self._clients = dict(kept[: MAX_CLIENTS // 2])
