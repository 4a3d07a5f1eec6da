"""What a board's agent says of it while a job has it, as lines of the job's timeline. Pure."""

from wire.payloads import Event
from wire.phases import EventType

MAX_LETTERS = 300
MAX_DETAILS = 8
_TOLD = {
    EventType.POWER,
    EventType.PHASE,
    EventType.NETBOOT,
    EventType.REGISTERED,
    EventType.REGISTRATION_REFUSED,
    EventType.PRESENCE,
    EventType.ALERT,
}


def line_of(event: Event) -> str | None:
    """One line, or None for an event that tells nothing of the board."""
    if event.type not in _TOLD:
        return None
    details = [
        f"{key} {value}" for key, value in event.details.items() if isinstance(value, str | int | float) and value != ""
    ]
    text = f"{event.board}: {event.type.value}" + (f" ({', '.join(details[:MAX_DETAILS])})" if details else "")
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:MAX_LETTERS]
