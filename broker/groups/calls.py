"""The MultiNode calls of a running group: taken in, answered, or kept until they can be. Changes only `Ledger.out`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from broker.groups.multinode_payloads import WorkCall
from broker.groups.rendezvous import Call, CallError, Rendezvous, Sent, Verb, parse_call
from broker.happenings import Moment, SaveMeeting, SendAnswer
from broker.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Meeting:
    """A stored message of a group: what `SaveMeeting` saved."""

    group: int
    attempt: int
    board: str
    call: str
    text: str


@dataclass(frozen=True, slots=True)
class _Pending:
    job: str
    token: int
    call: Call
    since: float


@dataclass(slots=True)
class GroupCalls:
    """One run of a group. Times are monotonic seconds."""

    ledger: Ledger
    group: int
    attempt: int
    timeout_s: float | None
    meeting: Rendezvous
    _pending: dict[tuple[str, str], _Pending] = field(default_factory=dict)

    @classmethod
    def of(
        cls, ledger: Ledger, group: int, attempt: int, timeout_s: float | None, roles: Mapping[str, str]
    ) -> "GroupCalls":
        return cls(ledger, group, attempt, timeout_s, Rendezvous(dict(roles)))

    def restore(self, meetings: Iterable[Meeting]) -> None:
        """Take in what was sent before our predecessor ended. Calls that wait are said again by their boards."""
        for stored in meetings:
            if (stored.group, stored.attempt) == (self.group, self.attempt):
                self.meeting.add(Sent(stored.board, parse_call(stored.call, stored.text)))

    def called(self, board: str, asked: WorkCall, now: Moment) -> None:
        """A board of the group calls, for the first time or again."""
        try:
            call = parse_call(asked.call, asked.text)
            if call.verb in (Verb.SEND, Verb.SYNC) and self.meeting.add(Sent(board, call)):
                self.ledger.out.append(SaveMeeting(self.group, self.attempt, board, asked.call, asked.text))
        except CallError as error:
            self._answer(board, asked.job, asked.token, asked.call, ok=False, text=str(error))
            return
        known = self._pending.get((board, call.id))
        since = known.since if known is not None else now.mono
        self._pending[board, call.id] = _Pending(asked.job, asked.token, call, since)
        self.look(now)

    def ended(self, board: str, now: Moment) -> None:
        """The board's part is over: whoever waits for something from it is told so."""
        if board not in self.meeting.ended:
            self.meeting.ended.add(board)
            self._pending = {key: one for key, one in self._pending.items() if key[0] != board}
            self.look(now)

    def look(self, now: Moment) -> None:
        """Answer what can be answered."""
        for (board, name), waiting in list(self._pending.items()):
            ok, text = True, None
            try:
                text = self.meeting.answer(board, waiting.call)
            except CallError as error:
                ok, text = False, str(error)
            if text is None and self.timeout_s is not None and now.mono - waiting.since >= self.timeout_s:
                ok, text = False, f"{waiting.call.name}: not answered in the call_timeout_s of {self.timeout_s:g} s"
            if text is not None:
                del self._pending[board, name]
                self._answer(board, waiting.job, waiting.token, name, ok=ok, text=text)

    def _answer(self, board: str, job: str, token: int, call: str, *, ok: bool, text: str) -> None:
        self.ledger.out.append(SendAnswer(board, job, token, call, ok, text))
