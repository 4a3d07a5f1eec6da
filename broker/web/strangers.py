"""Boards that asked to register and were refused: what they said of themselves, and why they may not. No I/O.

What they say is a claim; nothing in it is proven. They wait here until a person writes them into an agent's settings.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime

from broker.web.farm_mirror import Change, Document
from wire.payloads import PayloadError, Registration, RegistrationAnswer, decode
from wire.topics import Topics

MOST_STRANGERS = 256
"""Those heard last: whoever invents MAC addresses does not fill the memory."""


@dataclass(frozen=True, slots=True)
class _Stranger:
    said: Registration
    first: datetime
    last: datetime
    times: int = 1
    why: str | None = None
    """None while no agent has answered."""
    agent: str | None = None


class Strangers:
    """Fed with messages; answers with documents that can go out as JSON."""

    def __init__(self, prefix: str) -> None:
        self._topics = Topics(prefix)
        self._known: OrderedDict[str, _Stranger] = OrderedDict()

    def subscriptions(self) -> list[str]:
        """The topics that `feed` understands."""
        return [self._topics.register(), f"{self._topics.register()}/+"]

    def feed(self, topic: str, payload: bytes, now: datetime) -> list[Change]:
        """Take a message; what cannot be read changes nothing."""
        try:
            if topic == self._topics.register():
                self._asked(decode(Registration, payload), now)
                return []
            if topic.startswith(f"{self._topics.register()}/") and payload:
                return self._answered(decode(RegistrationAnswer, payload))
        except PayloadError:
            return []
        return []

    def _asked(self, said: Registration, now: datetime) -> None:
        before = self._known.pop(said.mac, None)
        if before is None:
            before = _Stranger(said, now, now, times=0)
        self._known[said.mac] = replace(before, said=said, last=now, times=before.times + 1)
        while len(self._known) > MOST_STRANGERS:
            self._known.popitem(last=False)

    def _answered(self, answer: RegistrationAnswer) -> list[Change]:
        mac = next((mac for mac, known in self._known.items() if known.said.boot_id == answer.boot_id), None)
        if mac is None:
            return []
        if answer.ok:
            gone = self._known.pop(mac)
            return [] if gone.why is None else [Change("stranger", mac, {"mac": mac, "gone": True})]
        why = "it was refused without a reason" if answer.error is None else answer.error.message
        self._known[mac] = replace(self._known[mac], why=why, agent=answer.agent)
        return [Change("stranger", mac, self._document(mac))]

    def _document(self, mac: str) -> Document:
        found = self._known[mac]
        return {
            "mac": mac,
            "first": found.first.isoformat(timespec="seconds"),
            "last": found.last.isoformat(timespec="seconds"),
            "times": found.times,
            "why": found.why,
            "agent": found.agent,
            "said": found.said.model_dump(mode="json", exclude_none=True, exclude={"proof", "boot_id", "mac"}),
        }

    def forget(self, mac: str) -> bool:
        """Forget one; whether it was there. It comes back when it asks again."""
        return self._known.pop(mac, None) is not None

    def all(self) -> list[Document]:
        """Those who were refused, the last first."""
        return [self._document(mac) for mac in reversed(self._known) if self._known[mac].why is not None]
