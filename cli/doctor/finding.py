"""What a check says."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How it is."""

    OK = "ok"
    WRONG = "wrong"
    UNSEEN = "unseen"
    """The check could not look; `what` says why. Never the same as ok."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        check: which check says it, as `ports`.
        subject: what it is about, as `udp 69 (TFTP)`.
        what: how it is, as a clause.
        mend: the command, or what else a person does about it; empty where all is well. What is a command can be
            pasted as it stands: words beside it are behind a `#`.
    """

    check: str
    subject: str
    verdict: Verdict
    what: str
    mend: str = ""


def well(check: str, subject: str, what: str) -> Finding:
    """All is well."""
    return Finding(check, subject, Verdict.OK, what)


def wrong(check: str, subject: str, what: str, mend: str) -> Finding:
    """Something is wrong."""
    return Finding(check, subject, Verdict.WRONG, what, mend)


def unseen(check: str, subject: str, why: str, mend: str = "") -> Finding:
    """The check could not look, because of `why`."""
    return Finding(check, subject, Verdict.UNSEEN, f"not seen, because {why}", mend)
