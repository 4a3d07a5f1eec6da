"""What the farm says of itself over MQTT, put together for the page: a core without I/O.

Leases' tokens stay in here: whoever has one may switch the board.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime

from wire.payloads import (
    AgentInfo,
    AgentState,
    Alert,
    BoardInfo,
    BoardSelf,
    BoardState,
    BrokerState,
    Event,
    JobSummary,
    Lease,
    Payload,
    PayloadError,
    Telemetry,
    decode,
)
from wire.phases import LeaseKind, Phase, Power, Presence
from wire.topics import Topics

JOBS_KEPT = 1000
"""Of the last jobs that were told; the others are asked of the broker."""

Document = dict[str, object]


@dataclass(frozen=True, slots=True)
class Change:
    """Something that whoever looks wants to know: what it is of (`board`, `job`, `agent`, `broker`, `event`)."""

    kind: str
    name: str
    document: Document


@dataclass(slots=True)
class _Board:
    state: BoardState | None = None
    info: BoardInfo | None = None
    words: BoardSelf | None = None
    lease: Lease | None = None
    watts: float | None = None
    alerts: dict[str, Alert] = field(default_factory=dict)


def _dump(payload: Payload) -> Document:
    return payload.model_dump(mode="json", exclude_none=True)


class FarmMirror:
    """Fed with messages; answers with documents that can go out as JSON."""

    def __init__(self, prefix: str) -> None:
        self._topics = Topics(prefix)
        self._boards: dict[str, _Board] = {}
        self._documents: dict[str, Document] = {}
        """Boards as they are shown, until something is said that changes it. Nobody writes into one."""
        self._agents: dict[str, AgentState] = {}
        self._agent_infos: dict[str, AgentInfo] = {}
        self._jobs: OrderedDict[str, JobSummary] = OrderedDict()
        self.broker: BrokerState | None = None

    def subscriptions(self) -> list[str]:
        """The topics that `feed` understands."""
        topics = self._topics
        boards = [topics.every_board(tail) for tail in ("state", "info", "self", "lease", "telemetry", "alert/+")]
        agents = [topics.every_agent("state"), topics.every_agent("info")]
        return [*boards, *agents, topics.broker_state(), topics.every_job_state(), topics.every_event()]

    def feed(self, topic: str, payload: bytes) -> list[Change]:
        """Take a message; what cannot be read changes nothing."""
        try:
            return self._feed(topic, payload)
        except PayloadError:
            return []

    def _feed(self, topic: str, payload: bytes) -> list[Change]:
        board = self._topics.parse_board(topic)
        if board is not None:
            return self._feed_board(board.board, board.tail, payload)
        agent = self._topics.parse_agent(topic)
        if agent is not None:
            return self._feed_agent(agent.board, agent.tail, payload)
        if topic == self._topics.broker_state():
            self.broker = decode(BrokerState, payload) if payload else None
            return [Change("broker", "broker", self.broker_document())]
        kind, _, name = topic.removeprefix(f"{self._topics.prefix}/").partition("/")
        if kind == "event" and payload:
            event = decode(Event, payload)
            return [Change("event", event.board, _dump(event))]
        if kind == "job" and name.endswith("/state") and payload:
            job = decode(JobSummary, payload)
            self._jobs[job.job] = job
            self._jobs.move_to_end(job.job)
            while len(self._jobs) > JOBS_KEPT:
                self._jobs.popitem(last=False)
            return [Change("job", job.job, _dump(job))]
        return []

    def _feed_board(self, name: str, tail: str, payload: bytes) -> list[Change]:
        self._documents.pop(name, None)
        board = self._boards.setdefault(name, _Board())
        if tail == "state":
            board.state = decode(BoardState, payload) if payload else None
        elif tail == "info":
            board.info = decode(BoardInfo, payload) if payload else None
        elif tail == "self":
            board.words = decode(BoardSelf, payload) if payload else None
        elif tail == "lease":
            board.lease = decode(Lease, payload) if payload else None
        elif tail == "telemetry":
            watts = decode(Telemetry, payload).power_w
            if watts == board.watts:
                return []
            board.watts = watts
        elif tail.startswith("alert/"):
            alert = tail.removeprefix("alert/")
            if payload:
                board.alerts[alert] = decode(Alert, payload)
            else:
                board.alerts.pop(alert, None)
        else:
            return []
        if board == _Board():
            # Every retained word of it was cleared: it has left the farm.
            del self._boards[name]
            return [Change("board", name, {"board": name, "gone": True})]
        return [Change("board", name, self.board(name) or {})]

    def _feed_agent(self, name: str, tail: str, payload: bytes) -> list[Change]:
        if tail == "state":
            if payload:
                self._agents[name] = decode(AgentState, payload)
            else:
                self._agents.pop(name, None)
        elif tail == "info" and payload:
            self._agent_infos[name] = decode(AgentInfo, payload)
        else:
            return []
        mine = [board for board, known in self._boards.items() if known.state and known.state.agent == name]
        for board in mine:
            self._documents.pop(board, None)
        return [
            Change("agent", name, self.agent(name)),
            *(Change("board", board, self.board(board) or {}) for board in mine if tail == "state"),
        ]

    # --- what is asked ---------------------------------------------------------------------------------------

    @property
    def board_names(self) -> list[str]:
        return sorted(self._boards)

    def lease(self, board: str) -> Lease | None:
        """The lease as it was last said, run out or not."""
        found = self._boards.get(board)
        return None if found is None else found.lease

    def agent_of(self, board: str) -> str | None:
        """The agent that has the board."""
        found = self._boards.get(board)
        return None if found is None or found.state is None else found.state.agent

    def online(self, agent: str) -> bool:
        state = self._agents.get(agent)
        return state is not None and state.state is Presence.ONLINE

    def board(self, name: str) -> Document | None:
        """One board as the page shows it, the same object until it changes; None where nothing was ever said of it."""
        known = self._documents.get(name)
        board = self._boards.get(name)
        if known is not None or board is None:
            return known
        document = self._documents[name] = self._document(name, board)
        return document

    def _document(self, name: str, board: _Board) -> Document:
        document: Document = {"board": name, "power": Power.UNKNOWN.value, "phase": None}
        state = board.state
        if state is not None:
            online = self.online(state.agent)
            # What an agent that is gone said last is old: the truth is that nobody knows.
            document |= _dump(state) | {"agent_online": online}
            if not online:
                document["power"] = Power.UNKNOWN.value
        if board.info is not None:
            document["info"] = _dump(board.info)
        if board.words is not None:
            document["work"] = board.words.work
            document["presence"] = board.words.state.value
        if board.lease is not None:
            document["lease"] = {key: value for key, value in _dump(board.lease).items() if key != "token"}
        document["watts"] = board.watts
        document["alerts"] = {alert: _dump(found) for alert, found in sorted(board.alerts.items())}
        return document

    def boards(self) -> list[Document]:
        return [found for name in self.board_names if (found := self.board(name)) is not None]

    def agent(self, name: str) -> Document:
        document: Document = {"agent": name}
        if (state := self._agents.get(name)) is not None:
            document |= _dump(state)
        if (info := self._agent_infos.get(name)) is not None:
            document["info"] = _dump(info)
        return document

    def agents(self) -> list[Document]:
        return [self.agent(name) for name in sorted(self._agents.keys() | self._agent_infos.keys())]

    def jobs(self) -> list[Document]:
        """The last jobs that were told, the newest change first."""
        return [_dump(job) for job in reversed(self._jobs.values())]

    def broker_document(self) -> Document:
        return {} if self.broker is None else _dump(self.broker)

    def phases(self) -> dict[Phase, int]:
        """How many boards are in each phase."""
        counts = dict.fromkeys(Phase, 0)
        for board in self._boards.values():
            if board.state is not None:
                counts[board.state.phase] += 1
        return counts

    def leased(self, now: datetime) -> dict[LeaseKind, int]:
        """How many boards are held at `now`, by whom. Of old, only jobs held boards and did not say so."""
        counts = dict.fromkeys(LeaseKind, 0)
        for board in self._boards.values():
            if board.lease is not None and board.lease.expires > now:
                counts[board.lease.kind or LeaseKind.JOB] += 1
        return counts

    def watts(self) -> float:
        """What the boards draw together, of those that say it."""
        return sum(board.watts or 0.0 for board in self._boards.values())
