"""Which outlets feed what was heard: hypotheses that the record has not refuted, and how sure the last one is.

A subject that hangs on outlet A is heard each time that A has power, and never while A has none. So being heard once
while A is off refutes A for ever, and so does a time of A's in which the subject was silent for longer than it ever
took. What is left is compared with chance: something that has nothing to do with any outlet, heard at times of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from math import log

from agent.learn.history import FOREVER, Heard, History, Span, Trial
from agent.learn.signs import Subject

Feed = tuple[str, ...]
"""One outlet, or several of which each alone keeps the board running."""

SLACK = 1.5
SLACK_S = 2.0
"""A board that was heard after d seconds is silent only when nothing came within `SLACK * d + SLACK_S`: the spread of
boots on a loaded network, and DHCP's first repeat."""
ALIKE, ALIKE_S = 0.25, 1.0
"""Delays that differ by less than this share of them, or by this, are one board's."""
ODD_ONE = 0.05
"""How often a board boots at another pace: a disk check, a lost packet."""
SHORTEST_DELAY_S, LONGEST_DELAY_S = 0.5, 600.0
"""Between these, delays of boards are taken to be spread evenly over their logarithm."""
CHANCE_S = 1200.0
"""A stranger is taken to be heard at least so often: what is looked for again and again for hours is met in the end."""
MIN_HITS = 2
"""Whatever the odds say, once is no proof."""
MAX_PAIRED = 24
"""What was heard with more outlets than this talks all the time; no two of them explain it."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """An outlet that might feed a subject as well: the two were on together, and whether it alone is enough was never
    seen.

    Attributes:
        outlet: which.
        wait_s: it has a board of its own that was heard after so long. If that is silent while the subject is heard
            with this outlet off, they are two boards. None: nothing else is known of it; it must be tried alone.
    """

    outlet: str
    wait_s: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one subject.

    Attributes:
        feeds: what is not refuted; several while it is not yet told apart.
        delays_s: of the only one left: when it was heard after each cold switch-on.
        odds: how many times likelier the only one left is than chance.
        doubts: outlets that might feed it as well.
        proven: nothing more needs to be tried.
        why: why nothing is left, if so.
    """

    subject: Subject
    feeds: tuple[Feed, ...] = ()
    delays_s: tuple[float, ...] = ()
    odds: float = 0.0
    doubts: tuple[Doubt, ...] = ()
    proven: bool = False
    why: str = ""


def needed_s(delay_s: float) -> float:
    """How long to wait for what came after `delay_s` before."""
    return SLACK * delay_s + SLACK_S


class Evidence:
    """The record of an experiment as it stands at `now`."""

    def __init__(
        self,
        history: History,
        outlets: Iterable[str],
        odds_needed: float,
        now: float,
        refuted: "set[tuple[Subject, Feed]] | None" = None,
    ) -> None:
        """`refuted` is kept from one weighing to the next: what was heard without its feed's power stays refuted."""
        self._refuted: set[tuple[Subject, Feed]] = set() if refuted is None else refuted
        self._history = history
        self._outlets = list(outlets)
        self._odds_needed = odds_needed
        self._now = now
        self._silent = {
            name: [span.until(now) for span in history.silent_spans(name) if span.begin <= now]
            for name in self._outlets
        }
        self._alone_spans: dict[tuple[str, Feed], list[Span]] = {}
        self._trials = {name: history.trials(name, now) for name in self._outlets}

    def standings(self, *, explain: bool) -> dict[Subject, Standing]:
        """Every subject that was heard. `explain`: say also why nothing is left, where nothing is."""
        heard = self._history.heard
        feeds: dict[Subject, tuple[Feed, ...]] = {}
        for subject, what in heard.items():
            single = tuple((outlet,) for outlet in self._outlets if self._may_feed(outlet, subject, what))
            feeds[subject] = single or self._pairs(subject, what)
        self._own: dict[str, list[tuple[Heard, float]]] = {outlet: [] for outlet in self._outlets}
        for subject, found in feeds.items():
            if len(found) == 1 and len(found[0]) == 1:
                what = heard[subject]
                self._own[found[0][0]].append((what, needed_s(max(self._delays(found[0][0], what)))))
        standings = {}
        for subject, found in feeds.items():
            standing = self._standing(subject, heard[subject], found)
            if explain and not found:
                standing = replace(standing, why=self._why_nothing(heard[subject]))
            standings[subject] = standing
        return standings

    # --- one outlet ------------------------------------------------------------------------------------------

    def _may_feed(self, outlet: str, subject: Subject, what: Heard) -> bool:
        if (subject, (outlet,)) in self._refuted:
            return False
        if self._heard_in(what, self._silent[outlet]):
            self._refuted.add((subject, (outlet,)))
            return False
        delays = self._delays(outlet, what)
        if not delays:
            return False
        wait_s = needed_s(max(delays))
        return not any(
            trial.listened_s >= wait_s and what.first_in(trial.span) is None for trial in self._trials[outlet]
        )

    def _delays(self, outlet: str, what: Heard) -> list[float]:
        found = []
        for trial in self._trials[outlet]:
            at = what.first_in(trial.span)
            if at is not None:
                found.append(at - trial.span.begin)
        return found

    def _heard_in(self, what: Heard, spans: Iterable[Span]) -> bool:
        return any(what.first_in(span) is not None for span in spans)

    # --- two outlets, of which each alone is enough ------------------------------------------------------------

    def _pairs(self, subject: Subject, what: Heard) -> tuple[Feed, ...]:
        hit = [outlet for outlet in self._outlets if self._delays(outlet, what)]
        if len(hit) > MAX_PAIRED:
            return ()
        return tuple(pair for pair in combinations(hit, 2) if self._may_both_feed(pair, subject, what))

    def _may_both_feed(self, pair: tuple[str, str], subject: Subject, what: Heard) -> bool:
        if (subject, pair) in self._refuted:
            return False
        both_off = (
            Span(max(a.begin, b.begin), min(a.end, b.end))
            for a in self._silent[pair[0]]
            for b in self._silent[pair[1]]
            if a.touches(b)
        )
        if self._heard_in(what, both_off):
            self._refuted.add((subject, pair))
            return False
        delays = [self._cold(pair[0], what, pair[1:]), self._cold(pair[1], what, pair[:1])]
        heard = [[delay for delay, _ in cold if delay is not None] for cold in delays]
        if not any(heard):
            return False
        wait_s = needed_s(max(delay for some in heard for delay in some))
        return not any(delay is None and listened_s >= wait_s for cold in delays for delay, listened_s in cold)

    def _cold(self, outlet: str, what: Heard, others: Iterable[str]) -> list[tuple[float | None, float]]:
        """Each time that `outlet` was switched on while `others` were off: when it was heard, and how long the others
        stayed off."""
        others = tuple(others)
        if (outlet, others) not in self._alone_spans:
            spans = (self._alone(trial, others) for trial in self._trials[outlet])
            self._alone_spans[outlet, others] = [span for span in spans if span is not None]
        found: list[tuple[float | None, float]] = []
        for span in self._alone_spans[outlet, others]:
            at = what.first_in(span)
            found.append((None if at is None else at - span.begin, span.lasts_s))
        return found

    def _alone(self, trial: Trial, others: Iterable[str]) -> Span | None:
        end = trial.span.end
        for other in others:
            begin = trial.span.begin
            stretch = next((span for span in self._silent[other] if span.begin <= begin <= span.end), None)
            if stretch is None:
                return None
            end = min(end, stretch.end)
        return Span(trial.span.begin, end)

    # --- how sure --------------------------------------------------------------------------------------------

    def _standing(self, subject: Subject, what: Heard, feeds: tuple[Feed, ...]) -> Standing:
        if len(feeds) != 1:
            return Standing(subject, feeds, why=f"not told apart: {_either(feeds)}" if feeds else "")
        feed = feeds[0]
        delays = [self._delays_of(outlet, what, feed) for outlet in feed]
        odds = self._odds(delays)
        longest_s = max((delay for some in delays for delay in some), default=0.0)
        doubts = tuple(doubt for other in self._outlets if (doubt := self._doubt(other, what, feed, longest_s)))
        enough = all(len(some) >= MIN_HITS for some in delays) and odds >= self._odds_needed
        every = tuple(delay for some in delays for delay in some)
        return Standing(subject, feeds, every, odds, doubts, enough and not doubts, "" if enough else "seen too seldom")

    def _delays_of(self, outlet: str, what: Heard, feed: Feed) -> list[float]:
        others = [other for other in feed if other != outlet]
        return [delay for delay, _ in self._cold(outlet, what, others) if delay is not None]

    def _odds(self, delays: list[list[float]]) -> float:
        """Bayes: the feed against something that is heard at random. For chance, each first hearing could have been
        at any moment of the whole experiment (or of `CHANCE_S`); for the feed, the first delay is as boards' delays
        are, and each later one is near the first."""
        whole_s = min(self._now - self._history.begun, CHANCE_S)
        odds = 1.0
        for some in delays:
            odds /= len(self._outlets) + 1
            for number, delay in enumerate(some):
                if number == 0:
                    density = 1 / (max(delay, SHORTEST_DELAY_S) * log(LONGEST_DELAY_S / SHORTEST_DELAY_S))
                else:
                    usual = sorted(some[:number])[number // 2]
                    near_s = max(ALIKE_S, ALIKE * usual)
                    alike = abs(delay - usual) <= near_s
                    density = (1 - ODD_ONE) / (2 * near_s) if alike else ODD_ONE / LONGEST_DELAY_S
                odds *= density * whole_s
        return odds

    def _doubt(self, other: str, what: Heard, feed: Feed, longest_s: float) -> Doubt | None:
        """Whether `other` might feed it too: it was on only while it ran anyway."""
        if other in feed or not self._trials[other] or self._was_mute(other, what, feed, needed_s(longest_s)):
            return None
        own = [(its, wait_s) for its, wait_s in self._own[other] if its is not what]
        for its, wait_s in own:
            if all(self._was_mute(outlet, its, (other,), wait_s) for outlet in feed):
                return None
        return Doubt(other, min((wait_s for _, wait_s in own), default=None))

    def _was_mute(self, outlet: str, what: Heard, others: Iterable[str], wait_s: float) -> bool:
        """Whether it was switched on while `others` were off, and `what` was not heard for long enough."""
        return any(delay is None and alone_s >= wait_s for delay, alone_s in self._cold(outlet, what, others))

    def _why_nothing(self, what: Heard) -> str:
        all_off = self._everything_off()
        if self._heard_in(what, all_off):
            return (
                "it is heard while every outlet is off: it has other power (its console's cable, perhaps), or is none"
            )
        with_it = [outlet for outlet in self._outlets if self._delays(outlet, what)]
        if len(with_it) == 1:
            return f"it was heard with {with_it[0]} once, and not again"
        if with_it:
            return f"no outlet explains when it was heard ({', '.join(with_it[:6])}): it was moved, or needs several"
        return "it was heard only while its outlet was being switched"

    def _everything_off(self) -> list[Span]:
        stretches = [Span(self._history.begun, FOREVER)]
        for outlet in self._outlets:
            stretches = [
                Span(max(a.begin, b.begin), min(a.end, b.end))
                for a in stretches
                for b in self._silent[outlet]
                if a.touches(b)
            ]
        return stretches


def _either(feeds: Iterable[Feed]) -> str:
    return " or ".join(sorted(" with ".join(feed) for feed in feeds))
