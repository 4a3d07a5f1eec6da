"""Messages that cannot be read, in the log: whoever sends rubbish sends much of it."""

import logging
import time
from dataclasses import dataclass, field

from broker.inbox import Complaint

log = logging.getLogger(__name__)

AGAIN_S = 60.0
MOST_TOPICS = 1000


@dataclass(slots=True)
class Complaints:
    """One line per topic and minute."""

    _told: dict[str, float] = field(default_factory=dict)

    def tell(self, complaint: Complaint) -> None:
        now = time.monotonic()
        if now - self._told.get(complaint.about, -AGAIN_S) < AGAIN_S:
            return
        if len(self._told) >= MOST_TOPICS:
            self._told.clear()
        self._told[complaint.about] = now
        log.warning("%s: cannot be read: %s", complaint.about, complaint.problem)
