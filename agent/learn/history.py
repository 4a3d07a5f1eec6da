"""What happened: when each outlet had power, and when each subject was heard.

Times are monotonic seconds. A `Span` that goes on has the end `FOREVER`.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.learn.signs import Subject

FOREVER = float("inf")
MERGED_S = 0.5
"""Signs nearer to each other than this are one: a console in full flow makes hundreds a second."""


class Span(NamedTuple):
    """From `begin` to `end`, both included."""

    begin: float
    end: float

    def touches(self, other: "Span") -> bool:
        return self.begin <= other.end and other.begin <= self.end

    @property
    def lasts_s(self) -> float:
        return self.end - self.begin

    def until(self, now: float) -> "Span":
        """As far as it is known now."""
        return self if self.end <= now else Span(self.begin, max(self.begin, now))


@dataclass(frozen=True, slots=True)
class Trial:
    """One time that an outlet had power: from the moment that it was asked to, until it was seen to be off."""

    outlet: str
    span: Span

    @property
    def listened_s(self) -> float:
        """How long it was listened to."""
        return self.span.lasts_s


@dataclass(slots=True)
class Heard:
    """All that one subject let hear."""

    spans: list[Span] = field(default_factory=list)
    """In order, none touching another."""
    ready_at: list[float] = field(default_factory=list)
    words: str = ""
    present: bool = False
    """It is there now, and may have been silent for long."""

    def first_in(self, span: Span) -> float | None:
        """The first moment within `span` at which it was heard."""
        at = bisect_left(self.spans, span.begin, key=lambda heard: heard.end)
        if at == len(self.spans) or self.spans[at].begin > span.end:
            return None
        return max(self.spans[at].begin, span.begin)

    def last_in(self, span: Span) -> float | None:
        """The last moment within `span` at which it said something; its coming, for what is there until it goes."""
        at = bisect_left(self.spans, span.end, key=lambda heard: heard.begin)
        if at < len(self.spans) and self.spans[at].begin == span.end:
            return span.end
        if at == 0 or self.spans[at - 1].end < span.begin:
            return None
        last = self.spans[at - 1]
        return max(last.begin, span.begin) if last.end > span.end else last.end

    def last(self) -> float:
        """The last moment at which it said something; coming, for what is there or not."""
        return self.spans[-1].begin if self.present else self.spans[-1].end

    def add(self, now: float) -> None:
        """It is heard now."""
        if self.spans and now - self.spans[-1].end <= MERGED_S:
            self.spans[-1] = self.spans[-1]._replace(end=max(now, self.spans[-1].end))
        else:
            self.spans.append(Span(now, now))


class History:
    """The record of one experiment, from `begun`."""

    def __init__(self, begun: float, drain_s: float) -> None:
        """`drain_s`: how long after its power went a board may still be heard, by what was under way and by its
        capacitors. Within it, being heard says nothing."""
        self.begun = begun
        self.drain_s = drain_s
        self.heard: dict[Subject, Heard] = {}
        self.links: set[frozenset[Subject]] = set()
        self._on: dict[str, list[Span]] = {}
        self._off_since: dict[str, float] = {}

    # --- outlets ---------------------------------------------------------------------------------------------

    def was_off(self, outlet: str, now: float) -> None:
        """It is known to be off from now on."""
        self._on.setdefault(outlet, [])
        self._off_since.setdefault(outlet, now)

    def powered(self, outlet: str, now: float) -> None:
        """It is being switched on now."""
        self._on.setdefault(outlet, []).append(Span(now, FOREVER))

    def unpowered(self, outlet: str, now: float) -> None:
        """It was seen to be off now."""
        spans = self._on.setdefault(outlet, [])
        if spans and spans[-1].end == FOREVER:
            spans[-1] = spans[-1]._replace(end=now)
        self._off_since.setdefault(outlet, now)

    def is_on(self, outlet: str) -> bool:
        spans = self._on.get(outlet, [])
        return bool(spans) and spans[-1].end == FOREVER

    def on_spans(self, outlet: str) -> list[Span]:
        """When it had power."""
        return self._on.get(outlet, [])

    def trials(self, outlet: str, now: float) -> list[Trial]:
        """The times that it had power, the one that goes on as far as it has come."""
        return [Trial(outlet, span.until(now)) for span in self.on_spans(outlet)]

    def silent_spans(self, outlet: str) -> Iterator[Span]:
        """When nothing that hangs on it alone can be heard: off, and drained."""
        begin = self._off_since.get(outlet)
        if begin is None:
            return
        begin += self.drain_s
        for span in self.on_spans(outlet):
            if span.begin > begin:
                yield Span(begin, span.begin)
            begin = span.end + self.drain_s
        yield Span(begin, FOREVER)

    def was_off_at(self, outlet: str, at: float) -> bool:
        """Whether it had no power at `at`, and had drained."""
        return any(span.begin <= at <= span.end for span in self.silent_spans(outlet))

    # --- subjects --------------------------------------------------------------------------------------------

    def sign(self, subject: Subject, now: float, *, ready: bool = False, words: str = "") -> bool:
        """It is heard now. Returns whether that is the first time."""
        new = subject not in self.heard
        heard = self.heard.setdefault(subject, Heard())
        heard.add(now)
        if ready:
            heard.ready_at.append(now)
        heard.words = words or heard.words
        return new

    def presence(self, subject: Subject, now: float, *, here: bool, words: str = "") -> bool:
        """It came or went. Returns whether it was never heard before."""
        heard = self.heard.get(subject)
        if heard is not None and heard.present != here:
            if here:
                heard.spans.append(Span(now, FOREVER))
            else:
                heard.spans[-1] = heard.spans[-1]._replace(end=now)
            heard.present = here
        elif heard is None and here:
            self.heard[subject] = Heard([Span(now, FOREVER)], words=words, present=True)
            return True
        return False

    def link(self, one: Subject, other: Subject) -> None:
        """Both belong to one board."""
        if one != other:
            self.links.add(frozenset({one, other}))
