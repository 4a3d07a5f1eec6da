"""The experiment: which outlet is tried when, for how long, and when it is known what hangs on it.

First each outlet is tried once, several at a time, until its board is up or has been silent for long (the survey). Then
those whose signs are not yet beyond doubt are tried again, for no longer than their signs took, and only beside
outlets that cannot be mistaken for them. In the end everything is as it was found.
"""

from collections.abc import Iterable

from agent.learn.evidence import Evidence, Feed, Standing
from agent.learn.history import FOREVER, History, Span
from agent.learn.outlet_table import MOVING, At, Happening, after
from agent.learn.places import AFTER_DRAIN_S, LISTENED, ON, SHORTEST_S, Place, Rules
from agent.learn.signs import Action, Drawn, Ended, Event, Linked, Present, Sign, Subject, Switch, Switched, Tell
from agent.learn.wishes import Wishes

SURVEYS = 3
"""How often an outlet is listened to at length: again when another's sign had ended its time too early."""
MAX_CLAIMS = 3
"""How often a subject may be taken for another outlet's. What is heard with more than two talks by itself."""
NEVER = float("inf")


class Experiment:
    """One run. Feed it events and ticks; do the actions it returns. Nothing is done after `Ended`."""

    def __init__(self, outlets: Iterable[tuple[str, bool]], rules: Rules, now: float) -> None:
        """`outlets` are those that may be switched, each with whether it was found on."""
        self.rules = rules
        self.places = {name: Place(name, found_on=on, is_off=not on) for name, on in outlets}
        self.history = History(now, rules.drain_s)
        self._wishes = Wishes(self.history, rules.odds)
        self.ended = False
        self.stopped = ""
        """Why it was stopped before its end."""
        self._claims: dict[Subject, str] = {}
        self._claimed: dict[Subject, int] = {}
        self._wake_at = NEVER
        self._first_start: float | None = None
        self._last_start = now - max(rules.spacing_s, rules.inrush_s)
        self._restoring = False
        self._standings: dict[Subject, Standing] = {}
        self._stale = self._look = True
        self._refuted: set[tuple[Subject, Feed]] = set()

    # --- what comes in ---------------------------------------------------------------------------------------

    def begin(self, now: float) -> list[Action]:
        """The first actions: what is on goes off. Nothing, if it was stopped before."""
        if self._restoring:
            return []
        actions: list[Action] = []
        for place in self.places.values():
            if place.found_on:
                self._move(place, Happening.CLEARED)
                actions.append(Switch(place.outlet, on=False))
            else:
                self.history.was_off(place.outlet, now)
        on = len(actions)
        actions.append(Tell("begun", 0.0, f"{len(self.places)} outlets, {on} of them were on and go off now"))
        return [*actions, *self.tick(now)]

    def take(self, event: Event, now: float) -> list[Action]:
        """Something happened."""
        if self.ended:
            return []
        if isinstance(event, Switched):
            self._stale = self._stale or not (event.on or self._restoring)
            self._look = True
            return [*self._switched(event, now), *self.tick(now)]
        if self._restoring:
            # Boards that are going off say nothing about cables.
            return []
        if isinstance(event, Sign):
            new = self.history.sign(event.subject, now, ready=event.ready, words=event.words)
            return [*self._new(event.subject, event.words, new=new), *self.tick(now)]
        if isinstance(event, Present):
            new = self.history.presence(event.subject, now, here=event.here, words=event.words)
            return [*self._new(event.subject, event.words, new=new), *self.tick(now)]
        if isinstance(event, Linked):
            self.history.link(event.one, event.other)
        elif isinstance(event, Drawn):
            place = self.places.get(event.outlet)
            if place is not None and place.at is At.LISTENING and place.surveying:
                place.watts.append((now, event.watts))
        return []

    def stop(self, why: str, now: float) -> list[Action]:
        """End early: everything goes back to what it was. What is known so far stays."""
        if self.ended or self._restoring:
            return []
        self.stopped = why
        return self._restore(now)

    def tick(self, now: float) -> list[Action]:
        """Time passed."""
        if self.ended:
            return []
        if self._restoring:
            return self._restore(now)
        actions: list[Action] = []
        for place in [*self.places.values()] * 2:  # twice: weighing anew for one may end another's time
            if place.at is At.LISTENING and now >= self._deadline(place):
                if place.surveying:
                    # Weighed anew: what spoke may have been refuted by now, and then the time goes on.
                    self.weigh(now)
                    if now < self._deadline(place):
                        continue
                    place.ended_by = self._spokesman(place)
                    place.surveyed_s = max(place.surveyed_s, now - place.on_since)
                self._move(place, Happening.ENOUGH)
                actions.append(Switch(place.outlet, on=False))
        if now < (baseline_ends := self._baseline_ends()):
            self._wake_at = baseline_ends
            return actions
        if not (self._look or actions or now >= self._wake_at):
            return actions
        self._look = False
        while (place_at := self._next(now))[0] is not None:
            actions += self._start(place_at[0], now)
        self._wake_at = place_at[1]
        active = any(place.at in MOVING or place.at is At.LISTENING for place in self.places.values())
        return actions if active or self._wake_at != NEVER else [*actions, *self._restore(now)]

    @property
    def next_deadline(self) -> float | None:
        """When `tick` is wanted next; None when only an event can change anything."""
        if self.ended or self._restoring:
            return None
        wanted = [self._deadline(place) for place in self.places.values() if place.at is At.LISTENING]
        earliest = min([*wanted, self._wake_at])
        return None if earliest == NEVER else earliest

    def standings(self, now: float) -> dict[Subject, Standing]:
        """What is known of each subject; weighed anew when an outlet has gone off, and at the end."""
        if self._stale and not self.ended:
            # One that does not switch explains nothing: whatever it feeds does not change with our trials.
            switched = [place.outlet for place in self.places.values() if place.problem is None]
            evidence = Evidence(self.history, switched, self.rules.odds, now, self._refuted)
            self._standings, self._stale = evidence.standings(explain=self._restoring), False
        return self._standings

    def weigh(self, now: float) -> dict[Subject, Standing]:
        """As `standings`, of all that was heard until now."""
        self._stale = not self._restoring
        return self.standings(now)

    # --- beginning and end -----------------------------------------------------------------------------------

    def _baseline_ends(self) -> float:
        """When everything has been off for long enough; for ever away while something is still being switched off."""
        if self._first_start is not None:
            return self._first_start
        if any(place.at is At.FALLING for place in self.places.values()):
            return NEVER
        return max([self.history.begun, *(place.off_since for place in self.places.values())]) + self.rules.baseline_s

    def _restore(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if not self._restoring:
            self._restoring = self._stale = True
            self.standings(now)
            actions.append(Tell("restoring", 99.0, "putting the outlets back to what they were found as"))
        for place in self.places.values():
            if place.at in {At.IDLE, At.LISTENING, At.BROKEN}:
                self._move(place, Happening.RESTORE)
                if place.is_off != place.found_on and place.problem is None:
                    self._move(place, Happening.DONE)
                else:
                    actions.append(Switch(place.outlet, on=place.found_on))
        if not any(place.at in MOVING for place in self.places.values()):
            self.ended = True
            lost = tuple(place.outlet for place in self.places.values() if place.at is At.LOST)
            actions.append(Ended(lost))
        return actions

    # --- choosing --------------------------------------------------------------------------------------------

    def _running(self) -> int:
        return sum(place.at in ON for place in self.places.values())

    def _next(self, now: float) -> tuple[Place | None, float]:
        """The outlet to try now, if one may be; else when to ask again, `NEVER` if only an event can change it."""
        if self._running() >= self.rules.at_once:
            return None, NEVER
        unseen = [place for place in self.places.values() if place.at is At.IDLE and place.surveys == 0]
        spacing_s = max(self.rules.spacing_s, self.rules.inrush_s) if unseen else self.rules.inrush_s
        if now < self._last_start + spacing_s:
            return None, self._last_start + spacing_s
        if unseen:
            return unseen[0], NEVER
        busy = {place.outlet for place in self.places.values() if place.at in ON}
        ask_at = NEVER
        idle = [place for place in self.places.values() if place.at is At.IDLE and place.tries < self.rules.tries]
        # Who has been tried least goes first: a first try alone ends most doubts, and so the exclusions of the next.
        for place in sorted(idle, key=lambda place: place.tries):
            wish = self._wishes.of(place.outlet, self.standings(now), now)
            if wish.rivals & busy or not (wish.wait_s or self._cut_short(place, now)):
                continue
            drained = max((self.places[rival].off_since for rival in wish.rivals), default=0.0) + self.rules.drain_s
            rested_at = max(place.off_since + self.rules.rest_s, drained + AFTER_DRAIN_S)
            if now >= rested_at:
                return place, NEVER
            ask_at = min(ask_at, rested_at)
        return None, ask_at

    def _cut_short(self, place: Place, now: float) -> bool:
        """Whether its survey was ended by what is another's, as is known by now."""
        if place.surveys >= SURVEYS:
            return False
        standings = self.standings(now)
        if self._was_up(place, now):
            return False
        mine = [s for s in standings.values() if any(place.outlet in feed for feed in s.feeds)]
        spokesman = None if place.ended_by is None else standings.get(place.ended_by)
        if spokesman is not None and spokesman in mine and not spokesman.proven:
            return False  # whether it was its own that ended it is still being asked
        proven = [s.subject for s in mine if s.proven]
        if proven:
            return not self._heard_out(place, proven, now)
        if place.surveyed_s >= self.rules.listen_s:
            return False
        return not mine or (spokesman is not None and spokesman.proven)

    def _heard_out(self, place: Place, subjects: list[Subject], now: float) -> bool:
        """Whether it was once listened to until all of its own had been silent for long enough, or had had the time to
        say that it is up."""
        heard = [self.history.heard[subject] for subject in subjects]
        for trial in self.history.trials(place.outlet, now):
            span = trial.span
            first = min((at for one in heard if (at := one.first_in(span)) is not None), default=span.end)
            last = max((at for one in heard if (at := one.last_in(span)) is not None), default=span.end)
            if span.end - last >= self.rules.quiet_s or span.end - first >= self.rules.listen_s:
                return True
        return False

    def _was_up(self, place: Place, now: float) -> bool:
        """Whether its own board said that it is up, while it was listened to."""
        spans = [trial.span for trial in self.history.trials(place.outlet, now)]
        return any(
            span.begin <= at <= span.end
            for standing in self._standings.values()
            if standing.proven and place.outlet in standing.feeds[0]
            for at in self.history.heard[standing.subject].ready_at
            for span in spans
        )

    def _start(self, place: Place, now: float) -> list[Action]:
        again = place.surveys > 0 and not self._cut_short(place, now)
        place.surveying = not again
        place.deadlines = {}
        if again:
            wish = self._wishes.of(place.outlet, self.standings(now), now)
            place.least_s = wish.least_s
            for subject, wait_s in wish.wait_s.items():
                place.deadlines[subject] = now + wait_s
                self._wishes.granted(subject, place.outlet)
            longest_s = max([place.least_s, *wish.wait_s.values()])
            what = f"listening again for {len(place.deadlines)} signs, {longest_s:.1f} s at most"
        else:
            place.surveys += 1
            for subject, standing in self.standings(now).items():
                if standing.proven and place.outlet in standing.feeds[0]:
                    self._claims[subject] = place.outlet
            place.listened_from = now
            place.ended_by = None
            place.watts.clear()
            what = "listening"
        place.tries += 1
        place.on_since = now
        self._first_start = self._last_start = now
        self._move(place, Happening.CHOSEN)
        self.history.powered(place.outlet, now)
        return [Switch(place.outlet, on=True), Tell("trying", self._percent(), f"{place.outlet}: {what}")]

    def _percent(self) -> float:
        """Roughly: two tries each are usual."""
        done = sum(min(place.tries, 2) for place in self.places.values())
        return min(98.0, 98.0 * done / (2 * len(self.places) + 1))

    # --- listening -------------------------------------------------------------------------------------------

    def _deadline(self, place: Place) -> float:
        if place.surveying:
            return self._survey_ends(place)
        ends = place.on_since + place.least_s
        for subject, deadline in place.deadlines.items():
            heard = self.history.heard[subject]
            if heard.spans[-1].end < place.on_since:
                ends = max(ends, deadline)
        return ends

    def _survey_ends(self, place: Place) -> float:
        rules = self.rules
        latest = place.on_since + rules.listen_s
        spokesman = self._spokesman(place)
        if spokesman is not None:
            ready_at = min(at for at in self.history.heard[spokesman].ready_at if at >= place.on_since)
            # What draws nothing that is measured need not come to rest.
            settle_s = rules.settle_s if place.watts else 0.0
            return max(ready_at + settle_s, place.on_since + SHORTEST_S)
        spoke = [
            at for subject in self.claimed_by(place) if (at := self.history.heard[subject].last()) >= place.on_since
        ]
        if not spoke:
            return latest
        # It has said its first word in time, and now has as long again to say that it is up.
        return min(self._first_word(place) + rules.listen_s, max(spoke) + rules.quiet_s)

    def _first_word(self, place: Place) -> float:
        since = Span(place.on_since, FOREVER)
        heard = (self.history.heard[subject].first_in(since) for subject in self.claimed_by(place))
        return min((at for at in heard if at is not None), default=place.on_since)

    def claimed_by(self, place: Place) -> list[Subject]:
        """Who is taken for the outlet's board by now."""
        mine = (place.outlet,)
        found = []
        for subject in self.history.heard:
            standing = self._standings.get(subject)
            if standing is not None and len(standing.feeds) == 1:
                claimed = place.outlet in standing.feeds[0]
            else:
                claimed = self._claims.get(subject) == place.outlet and (subject, mine) not in self._refuted
            if claimed:
                found.append(subject)
        return found

    def _spokesman(self, place: Place) -> Subject | None:
        """Who has said that the outlet's board is up."""
        for subject in self.claimed_by(place):
            if any(at >= place.on_since for at in self.history.heard[subject].ready_at):
                return subject
        return None

    def _new(self, subject: Subject, words: str, *, new: bool) -> list[Action]:
        """Whose is it? Probably of the outlet that was switched on last and has not spoken by this sense. That decides
        only how long is listened, not what is found."""
        told: list[Action] = (
            [Tell("heard", self._percent(), f"{subject}{': ' + words if words else ''}")] if new else []
        )
        if self._first_start is None:
            self._claimed[subject] = MAX_CLAIMS  # it talks without any outlet
        held = self._claims.get(subject)
        if self._claimed.get(subject, 0) >= MAX_CLAIMS or (held is not None and self.places[held].at in ON):
            return told
        surveyed = [place for place in self.places.values() if place.at in LISTENED and place.surveying]
        if not surveyed:
            return told
        kinds = {(other.kind, outlet) for other, outlet in self._claims.items()}
        by_start = sorted(surveyed, key=lambda place: -place.on_since)
        mute = [place for place in by_start if (subject.kind, place.outlet) not in kinds]
        self._claims[subject] = (mute or by_start)[0].outlet
        self._claimed[subject] = self._claimed.get(subject, 0) + 1
        return told

    # --- switching -------------------------------------------------------------------------------------------

    def _switched(self, event: Switched, now: float) -> list[Action]:
        place = self.places.get(event.outlet)
        if place is None or place.at not in MOVING:
            return []
        failed = event.problem is not None
        self._move(place, Happening.REFUSED if failed else Happening.DONE)
        if failed:
            place.problem = event.problem
            actions: list[Action] = [Tell("trouble", self._percent(), f"{place.outlet}: {event.problem}")]
            if place.at is At.RETREATING:
                actions.append(Switch(place.outlet, on=False))
            return actions
        place.is_off = not event.on
        if place.is_off:
            place.off_since = now
            if not self._restoring:
                self.history.unpowered(place.outlet, now)
        return []

    def _move(self, place: Place, happening: Happening) -> None:
        place.at = after(place.at, happening)
