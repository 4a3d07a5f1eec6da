"""The broker's picture of the farm, made from retained MQTT messages. Pure: no I/O, no clock.

Nothing is believed for longer than its speaker lives: when an agent is lost or away, the phase and power of its
boards are unknown, and what an older session of it said no longer counts.
"""

from dataclasses import dataclass, field

from broker.jobs.labels import LabelValue
from wire.payloads import AgentState, BoardInfo, BoardSelf, BoardState
from wire.phases import Phase, Power, Presence

# A farm of thousands fits; a stranger who invents board names does not fill the memory.
MAX_BOARDS = 20_000


@dataclass(frozen=True, slots=True)
class BoardPicture:
    """One board as the broker may believe it now.

    `phase` is None and `power` unknown while the agent is away. `online`, `boot_id` and `work` are what the board
    says of itself.
    """

    name: str
    agent: str | None
    agent_online: bool
    phase: Phase | None
    power: Power
    reason: str | None
    online: bool
    boot_id: str | None
    work: str | None
    labels: dict[str, LabelValue]

    @property
    def ready(self) -> bool:
        """It is registered, idle, and says so itself."""
        return self.phase is Phase.READY and self.online and self.work is None

    @property
    def asleep(self) -> bool:
        """Off, and a power command would bring it up."""
        return self.phase in {Phase.OFF, Phase.SLEEPING}

    @property
    def coming_up(self) -> bool:
        """It will be ready soon. A board that takes no work stays `starting` while it is on, and fills no boot slot."""
        return self.phase is not None and self.phase.coming_up and self.labels.get("work") is not False

    @property
    def out_of_service(self) -> str | None:
        """Why it takes no work until somebody does something, or None."""
        if self.agent is None:
            return "no agent has said in what state it is"
        if not self.agent_online:
            return f"its agent {self.agent} is away"
        if self.phase is None:
            return f"its agent {self.agent} has not yet said in what state it is"
        if self.labels.get("work") is False:
            return "it takes no work (label work = false)"
        if not self.phase.in_service:
            return f"in {self.phase.value}" + (f" ({self.reason})" if self.reason else "")
        return None


@dataclass(slots=True)
class _Board:
    state: BoardState | None = None
    info: BoardInfo | None = None
    self_: BoardSelf | None = None
    labels: dict[str, LabelValue] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return self.state is None and self.info is None and self.self_ is None


def labels_of(info: BoardInfo | None) -> dict[str, LabelValue]:
    """The labels a job can ask for: the board's own, and `arch`, `memory_mb`, `image`, `compatible` from its info."""
    if info is None:
        return {}
    found: dict[str, LabelValue] = {}
    if info.arch is not None:
        found["arch"] = info.arch
    if info.memory_mb is not None:
        found["memory_mb"] = info.memory_mb
    if info.image is not None:
        found["image"] = info.image
    if info.compatible:
        found["compatible"] = tuple(info.compatible)
    found.update(info.labels)
    return found


@dataclass(slots=True)
class FarmView:
    """Messages in, `BoardPicture` out. Every `…_seen` takes None for a cleared retained message and says whether
    the message counted."""

    _agents: dict[str, AgentState] = field(default_factory=dict)
    _boards: dict[str, _Board] = field(default_factory=dict)
    _pictures: dict[str, BoardPicture] = field(default_factory=dict)
    _of_agent: dict[str, set[str]] = field(default_factory=dict)

    def _entry(self, board: str) -> _Board | None:
        entry = self._boards.get(board)
        if entry is None and len(self._boards) < MAX_BOARDS:
            entry = self._boards[board] = _Board()
        return entry

    def _changed(self, board: str) -> bool:
        self._pictures.pop(board, None)
        if (entry := self._boards.get(board)) is not None and entry.empty:
            del self._boards[board]
        return True

    def boards_of(self, agent: str) -> set[str]:
        """Boards that this agent has told the state of."""
        return self._of_agent.get(agent, set())

    def agent_seen(self, agent: str, state: AgentState | None) -> bool:
        known = self._agents.get(agent)
        if state is None:
            self._agents.pop(agent, None)
        elif known is not None and state.state is not Presence.ONLINE and state.session < known.session:
            return False  # the will of an older session: its successor is alive
        elif known is None and len(self._agents) >= MAX_BOARDS:
            return False
        else:
            self._agents[agent] = state
        for board in self.boards_of(agent):
            self._pictures.pop(board, None)
        return True

    def state_seen(self, board: str, state: BoardState | None) -> bool:
        entry = self._entry(board)
        if entry is None:
            return False
        known = entry.state
        if state is not None and known is not None and state.agent == known.agent:
            agent = self._agents.get(state.agent)
            current = agent is not None and agent.session == state.session
            if not current and state.session < known.session:
                return False
            if state.session == known.session and state.seq < known.seq:
                return False
        if known is not None and (state is None or state.agent != known.agent):
            self._of_agent[known.agent].discard(board)
            if not self._of_agent[known.agent]:
                del self._of_agent[known.agent]
        if state is not None:
            self._of_agent.setdefault(state.agent, set()).add(board)
        entry.state = state
        return self._changed(board)

    def info_seen(self, board: str, info: BoardInfo | None) -> bool:
        entry = self._entry(board)
        if entry is None:
            return False
        entry.info = info
        entry.labels = labels_of(info)
        return self._changed(board)

    def self_seen(self, board: str, said: BoardSelf | None) -> bool:
        entry = self._entry(board)
        if entry is None:
            return False
        known = entry.self_
        late_will = (
            said is not None
            and known is not None
            and known.state is Presence.ONLINE
            and said.state is Presence.OFFLINE
            and said.boot_id != known.boot_id
        )
        if late_will:
            return False
        entry.self_ = said
        return self._changed(board)

    def forget_presence(self) -> None:
        """The line to the MQTT server broke: who is there must be heard anew; who is known stays known."""
        self._agents.clear()
        for entry in self._boards.values():
            entry.self_ = None
        self._boards = {name: entry for name, entry in self._boards.items() if not entry.empty}
        self._pictures.clear()

    def names(self) -> list[str]:
        """Boards that an agent has announced. One that only speaks of itself is not the farm's."""
        return sorted(n for n, entry in self._boards.items() if entry.state is not None or entry.info is not None)

    def knows(self, name: str) -> bool:
        """Whether an agent has announced the board."""
        entry = self._boards.get(name)
        return entry is not None and (entry.state is not None or entry.info is not None)

    def board(self, name: str) -> BoardPicture:
        """The picture of a board; of an unknown one too, which then has nothing known in it."""
        picture = self._pictures.get(name)
        if picture is None:
            picture = self._picture(name, self._boards.get(name) or _Board())
            if name in self._boards:
                self._pictures[name] = picture
        return picture

    def _picture(self, name: str, entry: _Board) -> BoardPicture:
        state, said = entry.state, entry.self_
        agent = self._agents.get(state.agent) if state is not None else None
        agent_online = agent is not None and agent.state is Presence.ONLINE
        # Between an agent's start and its first word on this board, the retained word is its predecessor's.
        current = state is not None and agent is not None and agent_online and agent.session == state.session
        online = said is not None and said.state is Presence.ONLINE
        return BoardPicture(
            name=name,
            agent=state.agent if state is not None else None,
            agent_online=agent_online,
            phase=state.phase if state is not None and current else None,
            power=state.power if state is not None and current else Power.UNKNOWN,
            reason=state.reason if state is not None and current else None,
            online=online,
            boot_id=said.boot_id if said is not None else None,
            work=said.work if said is not None and online else None,
            labels=entry.labels,
        )
