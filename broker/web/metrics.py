"""The farm for Prometheus, in its text format. Numbers come from the mirror when they are asked for."""

from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.web.farm_mirror import Change, FarmMirror
from broker.web.live import Live
from broker.web.open_consoles import Consoles
from wire.phases import JobState, LeaseKind, Phase

WAIT_BUCKETS_S = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400)
"""From "a board was ready" to "a day in the queue"."""

JOBS_REMEMBERED = 20_000
"""The end of a job is told again after a restart, and counted once."""


class _Now(Collector):
    """What is, at the moment of asking."""

    def __init__(self, mirror: FarmMirror, live: Live, consoles: Consoles) -> None:
        self._mirror = mirror
        self._live = live
        self._consoles = consoles
        self.people_waiting: int | None = None
        """As the broker said last; None when it is away."""

    def collect(self) -> Iterator[Metric]:
        boards = GaugeMetricFamily("boardhand_boards", "Boards by phase.", labels=["phase"])
        for phase, count in self._mirror.phases().items():
            boards.add_metric([phase.value], count)
        yield boards
        watts = GaugeMetricFamily("boardhand_power_watts", "What the boards draw that say it, together.")
        watts.add_metric([], self._mirror.watts())
        yield watts
        alerts = GaugeMetricFamily("boardhand_alerts", "Alerts that stand.", labels=["board", "alert"])
        for board in self._mirror.boards():
            found = board.get("alerts")
            for name in found if isinstance(found, dict) else ():
                alerts.add_metric([str(board["board"]), str(name)], 1)
        yield alerts
        agents = GaugeMetricFamily("boardhand_agent_online", "1 while the agent is online.", labels=["agent"])
        for agent in self._mirror.agents():
            agents.add_metric([str(agent["agent"])], int(self._mirror.online(str(agent["agent"]))))
        yield agents
        queue = GaugeMetricFamily("boardhand_jobs", "Jobs that have not ended, by state.", labels=["state"])
        states = [job["state"] for job in self._mirror.jobs()]
        for state in JobState:
            if not state.ended:
                queue.add_metric([state.value], states.count(state.value))
        yield queue
        readers = GaugeMetricFamily("boardhand_live_readers", "Open connections of pages that look.")
        readers.add_metric([], self._live.readers)
        yield readers
        consoles = GaugeMetricFamily("boardhand_open_consoles", "Consoles that are open in browsers.")
        consoles.add_metric([], self._consoles.count)
        yield consoles
        yield from self._leases()

    def _leases(self) -> Iterator[Metric]:
        leased = GaugeMetricFamily("boardhand_boards_leased", "Boards that are held, by whom.", labels=["kind"])
        kinds = self._mirror.leased(datetime.now(UTC))
        for kind in LeaseKind:
            leased.add_metric([kind.value], kinds[kind])
        yield leased
        if self.people_waiting is not None:
            queue = GaugeMetricFamily("boardhand_people_waiting", "People in the queue for a board.")
            queue.add_metric([], self.people_waiting)
            yield queue


class Metrics:
    """Counts changes as they come, and writes everything down when asked."""

    def __init__(self, mirror: FarmMirror, live: Live, consoles: Consoles) -> None:
        self._registry = CollectorRegistry()
        self._now = _Now(mirror, live, consoles)
        self._registry.register(self._now)
        self._ended = Counter(
            "boardhand_jobs_ended", "Jobs that ended, by outcome.", ["outcome"], registry=self._registry
        )
        self._phases = Counter(
            "boardhand_phase_changes", "Changes of phase: `ready` counts boots.", ["phase"], registry=self._registry
        )
        self._waits = Histogram(
            "boardhand_job_wait_seconds",
            "From submission to start of a job.",
            buckets=WAIT_BUCKETS_S,
            registry=self._registry,
        )
        self._told: OrderedDict[str, None] = OrderedDict()

    def saw(self, change: Change, job_times: tuple[float, float] | None = None) -> None:
        """Count a change. `job_times` are submission and start of a job that has just ended, in seconds."""
        if change.kind == "event" and change.document.get("type") == "phase":
            details = change.document.get("details")
            phase = details.get("phase") if isinstance(details, dict) else None
            if phase in set(Phase):
                self._phases.labels(phase).inc()
        if change.kind == "job":
            state = change.document["state"]
            if state in {job.value for job in JobState if job.ended} and change.name not in self._told:
                self._told[change.name] = None
                while len(self._told) > JOBS_REMEMBERED:
                    self._told.popitem(last=False)
                self._ended.labels(state).inc()
                if job_times is not None:
                    self._waits.observe(max(0.0, job_times[1] - job_times[0]))

    def text(self, people_waiting: int | None) -> bytes:
        """Everything, as Prometheus reads it; `people_waiting` is None where nobody could say it."""
        self._now.people_waiting = people_waiting
        return generate_latest(self._registry)
