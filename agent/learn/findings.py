"""What an experiment has found, for people and for settings: boards, outlets of which nothing is known, and why."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations

from agent.learn.evidence import Feed, Standing
from agent.learn.experiment import Experiment
from agent.learn.places import Place
from agent.learn.signs import Kind, Subject

MAX_CONFIDENCE = 0.9999
"""What we do not know of chance is larger than the rest."""
NO_LOAD_W = 0.5
"""A meter's noise; a board that is on draws more."""


@dataclass(frozen=True, slots=True)
class Row:
    """One board. Where nothing was found, the field is empty."""

    feed: Feed
    consoles: tuple[str, ...]
    macs: tuple[str, ...]
    usb: tuple[str, ...]
    links: tuple[str, ...]
    boot_s: float | None
    """From switching on to its word that it is up."""
    idle_w: float | None
    busy_w: float | None
    confidence: float
    """Least of its signs', 0 to 1."""
    evidence: str

    @property
    def kind(self) -> str | None:
        """What to write as `feed_is` in its settings."""
        return "parallel" if len(self.feed) > 1 else None


@dataclass(frozen=True, slots=True)
class Unknown:
    """An outlet of which it is not known what hangs on it."""

    outlet: str
    because: str


@dataclass(frozen=True, slots=True)
class Stranger:
    """Something that was heard and belongs to no row."""

    subject: Subject
    because: str


@dataclass(frozen=True, slots=True)
class Findings:
    """All of it."""

    rows: list[Row] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)
    strangers: list[Stranger] = field(default_factory=list)


def findings(experiment: Experiment, now: float) -> Findings:
    """What is known at `now`; final once the experiment has ended."""
    standings = experiment.weigh(now)
    by_feed: dict[Feed, list[Standing]] = defaultdict(list)
    for standing in standings.values():
        if standing.proven:
            by_feed[standing.feeds[0]].append(standing)
    whole = _Wholes(experiment.history.links)
    doubtful = _contradictions(by_feed, whole)
    found = Findings()
    used: set[str] = set()
    placed: set[Subject] = set()
    why: dict[str, str] = {}
    for feed, proven in by_feed.items():
        problem = doubtful.get(feed) or _not_one_board(proven, whole)
        if problem is not None:
            why.update(dict.fromkeys(feed, problem))
            continue
        used.update(feed)
        placed.update(standing.subject for standing in proven)
        found.rows.append(_row(experiment, feed, proven, now))
    for place in experiment.places.values():
        if place.outlet not in used:
            because = why.get(place.outlet) or _why_unknown(experiment, place, standings.values(), now)
            found.unknown.append(Unknown(place.outlet, because))
    for subject, standing in standings.items():
        if subject not in placed:
            feeds = " with ".join(standing.feeds[0]) if len(standing.feeds) == 1 else ""
            because = standing.why or f"it goes with {feeds}, see there"
            found.strangers.append(Stranger(subject, because))
    return found


class _Wholes:
    """Which subjects are said to be of one board."""

    def __init__(self, links: Iterable[frozenset[Subject]]) -> None:
        self._whole: dict[Subject, set[Subject]] = {}
        for link in links:
            joined = set(link).union(*(self._whole.get(subject, {subject}) for subject in link))
            for subject in joined:
                self._whole[subject] = joined

    def of(self, subject: Subject) -> frozenset[Subject]:
        return frozenset(self._whole.get(subject, {subject}))


def _contradictions(by_feed: dict[Feed, list[Standing]], whole: _Wholes) -> dict[Feed, str]:
    """Feeds that cannot both be right."""
    found: dict[Feed, str] = {}
    for one, other in combinations(by_feed, 2):
        shared = set(one) & set(other)
        if shared:
            text = f"several boards go with {min(shared)}, one of them also with another outlet"
            found[one] = found[other] = text
        for standing in by_feed[one]:
            for another in by_feed[other]:
                if another.subject in whole.of(standing.subject):
                    text = (
                        f"{standing.subject} goes with {' and '.join(one)} and {another.subject} with "
                        f"{' and '.join(other)}, and they say that they are one board"
                    )
                    found[one] = found[other] = text
    return found


def _not_one_board(proven: list[Standing], whole: _Wholes) -> str | None:
    """Why these may be several boards that come up together, or none; None where they are one."""
    subjects = [standing.subject for standing in proven]
    boards = {whole.of(subject) for subject in subjects if subject.kind is Kind.MAC}
    consoles = {whole.of(subject) for subject in subjects if subject.kind is Kind.CONSOLE}
    names = ", ".join(str(subject) for subject in subjects[:6])
    if len(boards) > 1 or len(consoles) > 1:
        return f"several things come up together: {names}. It feeds a switch, a strip, or a board with several ports"
    if all(subject.kind is Kind.LINK for subject in subjects):
        return f"all that comes up is {names}: a switch, or a board that says nothing"
    return None


def _row(experiment: Experiment, feed: Feed, proven: list[Standing], now: float) -> Row:
    def names(kind: Kind) -> tuple[str, ...]:
        return tuple(sorted(standing.subject.name for standing in proven if standing.subject.kind is kind))

    boot_s = _boot_s(experiment, feed, proven, now)
    idle_w, busy_w = _watts(experiment, feed, boot_s)
    odds = min(standing.odds for standing in proven)
    best = max(proven, key=lambda standing: len(standing.delays_s))
    delays = best.delays_s
    times = len(delays)
    off_s = sum(span.until(now).lasts_s for outlet in feed for span in experiment.history.silent_spans(outlet))
    evidence = (
        f"{best.subject} came {times} of {times} times, {min(delays):.1f} to {max(delays):.1f} s after power; silent "
        f"in {off_s:.0f} s without; chance would do that once in {min(odds, 1e9):.0f}"
    )
    return Row(
        feed=feed,
        consoles=names(Kind.CONSOLE),
        macs=names(Kind.MAC),
        usb=names(Kind.USB),
        links=names(Kind.LINK),
        boot_s=boot_s,
        idle_w=idle_w,
        busy_w=busy_w,
        confidence=round(min(MAX_CONFIDENCE, odds / (1 + odds)), 4),
        evidence=evidence,
    )


def _boot_s(experiment: Experiment, feed: Feed, proven: list[Standing], now: float) -> float | None:
    """The first boot that came to its end."""
    took: list[float] = []
    history = experiment.history
    for outlet in feed:
        others = [other for other in feed if other != outlet]
        for trial in history.trials(outlet, now):
            if not all(history.was_off_at(other, trial.span.begin) for other in others):
                continue
            for standing in proven:
                ready = history.heard[standing.subject].ready_at
                took += [at - trial.span.begin for at in ready if trial.span.begin <= at <= trial.span.end][:1]
    return round(min(took), 1) if took else None


def _watts(experiment: Experiment, feed: Feed, boot_s: float | None) -> tuple[float | None, float | None]:
    """Idle is what it drew when it was up, or last; busy the most that it drew."""
    idle, busy = [], []
    for outlet in feed:
        place = experiment.places[outlet]
        if not place.watts:
            continue
        up = [watts for at, watts in place.watts if boot_s is not None and at - place.listened_from >= boot_s]
        idle.append(sum(up) / len(up) if up else place.watts[-1][1])
        busy.append(max(watts for _, watts in place.watts))
    return (round(max(idle), 2), round(max(busy), 2)) if idle else (None, None)


def _why_unknown(experiment: Experiment, place: Place, standings: Iterable[Standing], now: float) -> str:
    if place.problem is not None:
        return f"it does not switch: {place.problem}"
    trials = experiment.history.trials(place.outlet, now)
    if not trials:
        return f"it was not tried: {experiment.stopped or 'there was no time'}"
    stopped = f"; learning was stopped: {experiment.stopped}" if experiment.stopped else ""
    live = [standing for standing in standings if any(place.outlet in feed for feed in standing.feeds)]
    if live:
        names = ", ".join(str(standing.subject) for standing in live[:6])
        reason = next((standing.why for standing in live if standing.why), "") or (
            f"{live[0].doubts[0].outlet} might feed it as well" if live[0].doubts else "one of two boards"
        )
        return f"{names} may go with it, {reason}{stopped}"
    listened_s = max(trial.listened_s for trial in trials)
    text = f"nothing that goes with it was heard in {listened_s:.0f} s"
    if place.watts:
        most = max(watts for _, watts in place.watts)
        text += f", and it draws {most:.1f} W: " + ("something is there" if most > NO_LOAD_W else "nothing is there")
    return text + stopped
