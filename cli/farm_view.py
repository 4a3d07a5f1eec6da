"""What the retained messages say about the boards of a farm, put together: a core without I/O."""

import contextlib
from dataclasses import dataclass
from datetime import datetime

from cli.light_payloads import AgentState, BoardSelf, BoardState, Lease, PayloadError, decode
from cli.plain_text import shown
from wire.phases import Phase, Power, Presence
from wire.topics import Topics


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One line of `boardhand boards`. `power` is unknown while the board's agent is not online, or has not said it
    since it came back."""

    board: str
    power: str
    phase: str
    reason: str
    since: str
    agent: str
    agent_state: str
    job: str
    seq: int
    current: bool
    """Said by the agent's present session: not the retained word of one that is gone."""
    lease: Lease | None = None
    """As it was last said, run out or not."""

    def holder(self, now: datetime) -> str:
        """Who holds the board at `now`, a person or a job; empty when nobody does."""
        return "" if self.lease is None or self.lease.expires <= now else shown(self.lease.holder, 63)

    def document(self, now: datetime | None = None) -> dict[str, object]:
        """As it stands in `--json`; absent things are null. A lease that has run out at `now` is absent."""
        lease = self.lease if now is None or self.holder(now) else None
        until = None if lease is None else lease.ends or lease.expires
        return {
            "board": self.board,
            "power": self.power,
            "phase": self.phase,
            "reason": self.reason or None,
            "since": self.since or None,
            "agent": self.agent or None,
            "agent_state": self.agent_state or None,
            "job": self.job or None,
            "holder": None if lease is None else lease.holder,
            "holder_kind": None if lease is None else lease.kind,
            "held_until": None if until is None else until.isoformat(timespec="seconds"),
            "seq": self.seq,
        }


class FarmView:
    """Fed with MQTT messages, answers with rows. Payloads that cannot be read are shown as such, never raised."""

    def __init__(self, prefix: str) -> None:
        self._topics = Topics(prefix)
        self._states: dict[str, BoardState | str] = {}
        self._selves: dict[str, BoardSelf] = {}
        self._agents: dict[str, AgentState] = {}
        self._leases: dict[str, Lease] = {}

    def filters(self) -> tuple[str, ...]:
        """The topics to subscribe to."""
        topics = self._topics
        boards = (topics.every_board(tail) for tail in ("state", "self", "lease"))
        return topics.every_agent("state"), *boards

    def feed(self, topic: str, payload: bytes) -> bool:
        """Take a message. Returns whether it was one of ours."""
        board = self._topics.parse_board(topic)
        if board is not None and board.tail == "state":
            self._feed_state(board.board, payload)
            return True
        if board is not None and board.tail == "self":
            self._feed_self(board.board, payload)
            return True
        if board is not None and board.tail == "lease":
            self._feed_lease(board.board, payload)
            return True
        agent = self._topics.parse_agent(topic)
        if agent is not None and agent.tail == "state":
            self._feed_agent(agent.board, payload)
            return True
        return False

    def _feed_state(self, board: str, payload: bytes) -> None:
        if not payload:
            self._states.pop(board, None)
            return
        try:
            self._states[board] = decode(BoardState, payload)
        except PayloadError as error:
            self._states[board] = f"unreadable state: {shown(error, 120)}"

    def _feed_self(self, board: str, payload: bytes) -> None:
        self._selves.pop(board, None)
        if not payload:
            return
        try:
            self._selves[board] = decode(BoardSelf, payload)
        except PayloadError:
            return  # what a board says of itself is its own affair; its agent's word stands

    def _feed_lease(self, board: str, payload: bytes) -> None:
        self._leases.pop(board, None)
        with contextlib.suppress(PayloadError):  # what cannot be read binds nobody
            if payload:
                self._leases[board] = decode(Lease, payload)

    def _feed_agent(self, agent: str, payload: bytes) -> None:
        try:
            self._agents[agent] = decode(AgentState, payload)
        except PayloadError:
            self._agents.pop(agent, None)

    def rows(self) -> list[BoardRow]:
        """All boards, by name."""
        return [self._row(board, self._states[board]) for board in sorted(self._states)]

    def _row(self, board: str, state: BoardState | str) -> BoardRow:
        if isinstance(state, str):
            lease = self._leases.get(board)
            return BoardRow(board, Power.UNKNOWN, Phase.FAULT, state, "", "", "", "", 0, current=False, lease=lease)
        agent = self._agents.get(state.agent)
        current = agent is not None and agent.state is Presence.ONLINE and agent.session == state.session
        known = self._selves.get(board)
        job = known.work if known is not None and known.state is Presence.ONLINE else None
        return BoardRow(
            board=board,
            power=state.power if current else Power.UNKNOWN,
            phase=state.phase,
            reason=shown(state.reason or "", 200),
            since=state.since.isoformat(timespec="seconds"),
            agent=state.agent,
            agent_state=agent.state if agent is not None else "",
            job=job or "",
            seq=state.seq,
            current=current,
            lease=self._leases.get(board),
        )
