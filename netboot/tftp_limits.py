"""How often one client may ask: a bucket of tokens per address, so that a flood from one disturbs no other."""

MAX_CLIENTS = 4096  # a board network has hundreds; forged senders must not fill the memory
BURST = 90
"""Requests at once: GRUB fetches some 60 modules, a Raspberry Pi tries some 40 names."""


class RequestLimits:
    """`per_s` requests a second for each client beyond `BURST`; 0: without limit."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._clients: dict[str, tuple[float, float]] = {}

    def admit(self, client: str, now: float) -> bool:
        """Whether a request of `client` may be looked at; `now` is monotonic seconds."""
        if not self._per_s:
            return True
        since, left = self._clients.get(client, (now, float(BURST)))
        left = min(BURST, left + (now - since) * self._per_s)
        if left < 1.0:
            self._clients[client] = (now, left)
            return False
        if len(self._clients) >= MAX_CLIENTS and client not in self._clients:
            self._prune(now)
        self._clients[client] = (now, left - 1.0)
        return True

    def _prune(self, now: float) -> None:
        """Forget those whose bucket is full again, or the older half."""
        full_s = BURST / self._per_s
        kept = [(client, bucket) for client, bucket in self._clients.items() if now - bucket[0] < full_s]
        kept.sort(key=lambda item: item[1][0], reverse=True)
        self._clients = dict(kept[: MAX_CLIENTS // 2])
