"""How an experiment stands at a moment, outlet by outlet, for people who watch it."""

from collections.abc import Collection

from agent.learn.experiment import Experiment
from agent.learn.places import LISTENED, ON, Place

MOST_HEARD = 6
"""Of one outlet: what a row of a table has place for."""
USUAL_TRIES = 3
"""Most boards are beyond doubt after so many."""


def outlook(experiment: Experiment, now: float) -> list[dict[str, object]]:
    """One entry for each outlet, in the order in which they are tried: where it is, for how long it has been listened
    to, what was heard of it (as far as can be said by now) and whether since it was last switched on, its meter."""
    return [
        {
            "outlet": place.outlet,
            "at": place.at.value,
            "tries": place.tries,
            "listens_s": round(now - place.on_since, 1) if place.at in LISTENED else None,
            "watts": place.watts[-1][1] if place.watts else None,
            "heard": _heard(experiment, place) if place.tries else [],
        }
        for place in experiment.places.values()
    ]


def left_s(experiment: Experiment, settled: Collection[str], now: float) -> float | None:
    """About how long it will go on, if the boards to come are as those that were listened to; None before any was.
    `settled` are the outlets whose boards are beyond doubt."""
    places = [place for place in experiment.places.values() if place.problem is None]
    surveyed = [place.surveyed_s for place in places if place.surveyed_s > 0]
    if not surveyed:
        return None
    usual_s = sum(surveyed) / len(surveyed)
    again = [_last_lasted_s(experiment, place, now) for place in places if place.tries > place.surveys]
    again_s = sum(again) / len(again) if again else usual_s / 2
    work_s, waiting = 0.0, 0
    for place in places:
        this_s = 0.0
        if place.at in ON:
            this_s = max(1.0, (usual_s if place.surveying else again_s) - (now - place.on_since))
        elif place.surveys == 0:
            this_s = usual_s
        if place.surveys == 0 or (place.outlet not in settled and experiment.claimed_by(place)):
            this_s += again_s * max(1, USUAL_TRIES - place.tries)
        work_s += this_s
        waiting += this_s > 0
    return round(work_s / max(1, min(experiment.rules.at_once, waiting)), 1)


def _last_lasted_s(experiment: Experiment, place: Place, now: float) -> float:
    trials = experiment.history.trials(place.outlet, now)
    return trials[-1].listened_s if trials else 0.0


def _heard(experiment: Experiment, place: Place) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for subject in experiment.claimed_by(place):
        heard = experiment.history.heard[subject]
        is_now = place.at in ON and (heard.present or heard.last() >= place.on_since)
        found.append({"kind": subject.kind.value, "name": subject.name, "words": heard.words, "now": is_now})
    return sorted(found, key=lambda one: not one["now"])[:MOST_HEARD]
