"""What one more try of an outlet would be for: whose signs are waited for, how long, and who must be off meanwhile."""

from collections.abc import Mapping

from agent.learn.evidence import Standing, needed_s
from agent.learn.history import History
from agent.learn.places import SHORTEST_S, Wish
from agent.learn.signs import Subject

CHASES = 6
"""How often an outlet is tried again for the sake of one subject."""


class Wishes:
    """Of one experiment."""

    def __init__(self, history: History, odds: float) -> None:
        """`odds`: see `Rules`."""
        self._history = history
        self._odds = odds
        self._chased: dict[tuple[Subject, str], int] = {}

    def granted(self, subject: Subject, outlet: str) -> None:
        """The outlet is tried once more for the subject."""
        self._chased[subject, outlet] = self._chased.get((subject, outlet), 0) + 1

    def of(self, outlet: str, standings: Mapping[Subject, Standing], now: float) -> Wish:
        """What another try of the outlet would be for."""
        wish = Wish()
        for subject, standing in standings.items():
            fed_by = {name for feed in standing.feeds for name in feed}
            doubts = {doubt.outlet: doubt.wait_s for doubt in standing.doubts}
            if standing.proven or self._tired_of(subject, outlet):
                continue
            if outlet in doubts:
                if doubts[outlet] is None:
                    wish.wait_s[subject] = self._usual_wait_s(subject, fed_by, now)
                    wish.rivals |= fed_by
            elif outlet in fed_by and self._tells_most(outlet, subject, standing, now):
                own = [wait_s for wait_s in doubts.values() if wait_s is not None]
                if doubts and not own and standing.odds >= self._odds:
                    # The doubted ones are to be tried, not this one again.
                    continue
                # Beside another outlet that feeds it as well, it may take as long as it took there.
                together = {name for feed in standing.feeds if outlet in feed for name in feed}
                wish.wait_s[subject] = self._usual_wait_s(subject, together, now)
                wish.least_s = max(wish.least_s, *own, SHORTEST_S)
                wish.rivals |= fed_by | set(doubts)
        wish.rivals.discard(outlet)
        return wish

    def _tired_of(self, subject: Subject, outlet: str) -> bool:
        return self._chased.get((subject, outlet), 0) >= CHASES

    def _tells_most(self, outlet: str, subject: Subject, standing: Standing, now: float) -> bool:
        """Whether the outlet is the one to try for the subject: of those that only some of its feeds have, the one
        whose answer comes soonest. If it is heard there, all feeds without it are refuted, and need not be waited for
        in vain."""
        if len(standing.feeds) < 2:
            return True
        in_all = set(standing.feeds[0]).intersection(*standing.feeds)
        askable = {name for feed in standing.feeds for name in feed} - in_all
        waits = [
            (self._usual_wait_s(subject, {name}, now), name) for name in askable if not self._tired_of(subject, name)
        ]
        return min(waits, default=(0.0, ""))[1] == outlet

    def _usual_wait_s(self, subject: Subject, fed_by: set[str], now: float) -> float:
        heard = self._history.heard[subject]
        trials = (trial for name in fed_by for trial in self._history.trials(name, now))
        delays = [at - trial.span.begin for trial in trials if (at := heard.first_in(trial.span)) is not None]
        return needed_s(max(delays, default=0.0))
