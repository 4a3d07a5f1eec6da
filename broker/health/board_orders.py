"""What people say about boards: accept, retire, check, forget, maintenance. Pure: no I/O, no clock."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.happenings import AgentAnswered, Moment, Reply, SendRequest
from broker.health.desk import Give, HealthDesk
from broker.health.happenings import BoardAsked, BoardVerb
from broker.health.trust import TABLE, Health, HealthEvent, Record
from wire.payloads import ErrorInfo
from wire.phases import ErrorKind

MAINTENANCE_S = 10.0
_EVENTS = {
    BoardVerb.ACCEPT: HealthEvent.ACCEPT,
    BoardVerb.RETIRE: HealthEvent.RETIRE,
    BoardVerb.CHECK: HealthEvent.ASK,
}


@dataclass(slots=True)
class BoardOrders:
    """Changes records through the desk; answers stand in the ledger's `out`."""

    desk: HealthDesk
    _asked: dict[str, tuple[str, str, float]] = field(default_factory=dict)
    """Requests to agents by transaction: tag, board, and until when (monotonic) an answer is waited for."""
    _count: int = 0

    def take(self, asked: BoardAsked, now: Moment) -> None:
        """Do it, or say why not."""
        dispatch, board = self.desk.dispatch, asked.board
        record = self.desk.records.get(board)
        if record is None and not dispatch.farm.knows(board):
            self._refuse(asked.tag, ErrorKind.UNKNOWN_BOARD, f"board {board} is not known")
        elif asked.verb is BoardVerb.FORGET:
            self._forget(asked, record, now)
        elif asked.verb in {BoardVerb.MAINTENANCE_ON, BoardVerb.MAINTENANCE_OFF}:
            self._maintenance(asked, now)
        else:
            self._step(asked, record or Record(board, Health.TRUSTED, now.wall), now)

    def _step(self, asked: BoardAsked, record: Record, now: Moment) -> None:
        event = _EVENTS[asked.verb]
        if asked.verb is BoardVerb.CHECK and self.desk.rule_of(asked.board) is None:
            why = f"no [[broker.health]] fits {asked.board}: there is no health job to run"
            self._refuse(asked.tag, ErrorKind.NOT_FOUND, why)
            return
        if event not in TABLE[record.state]:
            self._refuse(asked.tag, ErrorKind.NOT_ALLOWED, f"board {asked.board} is {record.state.value}")
            return
        if event is not HealthEvent.ASK:
            self.desk.drop(record, now)
        record.step(event, now.wall, "a person asked" if event is HealthEvent.ASK else "")
        self.desk.records[asked.board] = record
        self.desk.changed(record)
        self._done(asked, record.state.value)

    def _forget(self, asked: BoardAsked, record: Record | None, now: Moment) -> None:
        dispatch, board = self.desk.dispatch, asked.board
        picture = dispatch.farm.board(board)
        if record is None or record.state is not Health.RETIRED:
            self._refuse(asked.tag, ErrorKind.NOT_ALLOWED, f"board {board} is not retired: retire it first")
        elif board in dispatch.ledger.held or board in dispatch.ledger.people:
            self._refuse(asked.tag, ErrorKind.BUSY, f"board {board} is still leased")
        elif self.desk.is_announced(picture):
            why = f"agent {picture.agent} still has board {board}: take it out of its settings first"
            self._refuse(asked.tag, ErrorKind.NOT_ALLOWED, why)
        else:
            self.desk.forget(record, now)
            self._done(asked, "forgotten")

    def _maintenance(self, asked: BoardAsked, now: Moment) -> None:
        picture = self.desk.dispatch.farm.board(asked.board)
        if picture.agent is None or not picture.agent_online:
            self._refuse(asked.tag, ErrorKind.UNREACHABLE, f"board {asked.board}: its agent is away")
            return
        self._count += 1
        name = f"maintenance-{int(now.wall.timestamp() * 1000)}-{self._count}"
        self._asked[name] = (asked.tag, asked.board, now.mono + MAINTENANCE_S)
        data: dict[str, object] = {"board": asked.board, "on": asked.verb is BoardVerb.MAINTENANCE_ON}
        request = SendRequest(picture.agent, "maintenance", name, data, now.after(MAINTENANCE_S))
        self.desk.dispatch.ledger.out.append(request)

    def answered(self, answer: AgentAnswered) -> None:
        """An agent's answer, perhaps to somebody else."""
        self.desk.answered(answer)
        name = answer.response.transaction
        if answer.verb != "maintenance" or name is None or name not in self._asked:
            return
        tag, board, _ = self._asked.pop(name)
        response = answer.response
        if not response.ok:
            error = response.error or ErrorInfo(kind=ErrorKind.INTERNAL, message="the agent gave no reason")
            self.desk.dispatch.ledger.out.append(Reply(tag, {}, error))
            return
        self.desk.dispatch.ledger.out.append(Reply(tag, {"board": board, "is": str(response.data.get("phase", ""))}))

    def restore(self, records: Iterable[Record]) -> None:
        """Take up what was committed; call it after the jobs."""
        self.desk.restore(records)

    def look(self, changed: set[str], give: Give, now: Moment, *, ticked: bool) -> None:
        """Go on with boards' health, and answer those whose agent did not."""
        self.desk.look(changed, give, now, ticked=ticked)
        for name, (tag, board, until) in list(self._asked.items()):
            if now.mono >= until:
                del self._asked[name]
                why = f"board {board}: its agent did not answer in {MAINTENANCE_S:g} s"
                self._refuse(tag, ErrorKind.UNREACHABLE, why)

    def _done(self, asked: BoardAsked, now_is: str) -> None:
        self.desk.dispatch.ledger.out.append(Reply(asked.tag, {"board": asked.board, "is": now_is}))

    def _refuse(self, tag: str, kind: ErrorKind, why: str) -> None:
        self.desk.dispatch.ledger.out.append(Reply(tag, {}, ErrorInfo(kind=kind, message=why, key="board")))
