"""Runs boards' health: notices new boards and faults, gives due boards their health job, and keeps what came of it.

A board whose record says so takes no other work: `Ledger.out_of_work` tells the dispatch. Pure: no I/O, no clock.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from broker.before_job import MAX_AGENTS
from broker.farm_view import BoardPicture
from broker.happenings import AgentAnswered, Moment, SendRequest
from broker.health.board_training import BoardTraining
from broker.health.happenings import ForgetBoard, SaveHealth, TellAlert
from broker.health.trust import MAX_TAIL_LETTERS, Evidence, Health, HealthEvent, HealthRule, Record
from broker.jobs.life import Job
from broker.jobs.own_boot import diagnosis
from broker.jobs.spec import JobSpec
from broker.matching.dispatch import Dispatch
from broker.matching.standing import Standing
from wire.payloads import AgentInfo, Alert, WorkLog, WorkReport
from wire.phases import JobState, Phase

Give = Callable[[int, str, Standing, Moment], None]
SUBMITTER = "health"
DIAGNOSIS_S = 10.0
LOOK_FOR_DUE_S = 30.0
MOST_DIAGNOSES = 1000
_ENDS = {Health.TRUSTED, Health.FAULT, Health.RETIRED}
_FREE = {Standing.READY, Standing.ASLEEP}


@dataclass(slots=True)
class HealthDesk:
    """Whatever it does stands in the ledger's `out`."""

    dispatch: Dispatch
    rules: tuple[HealthRule, ...]
    records: dict[str, Record] = field(default_factory=dict)
    training: BoardTraining = field(init=False)
    _jobs: dict[str, Job] = field(default_factory=dict)
    """Health jobs that have not ended, or whose end was not looked at, by board."""
    _open: set[str] = field(default_factory=set)
    """Boards about which something is to be done."""
    _not_before: dict[str, float] = field(default_factory=dict)
    _tails: dict[str, tuple[int, str]] = field(default_factory=dict)
    """What health jobs printed last, and the number of its last piece: pieces may come twice."""
    _asked: dict[str, str] = field(default_factory=dict)
    """Transactions by which agents were asked for a diagnosis, and their boards."""
    _agents: dict[str, frozenset[str]] = field(default_factory=dict)
    """The boards that each agent says it has."""
    _due_at: float = 0.0
    _count: int = 0

    def __post_init__(self) -> None:
        self.training = BoardTraining(self.dispatch)

    def restore(self, records: Iterable[Record]) -> None:
        """Take up what was committed; call it after the jobs."""
        ledger = self.dispatch.ledger
        for record in records:
            self.records[record.board] = record
            job = ledger.jobs.get(record.job) if record.job is not None else None
            if record.state is Health.CHECKING and job is not None:
                self._check(record.board, job)
            self._note(record)

    def restart(self, now: Moment) -> None:
        """The picture began anew: alerts are said again, since a server may have lost them."""
        for record in self.records.values():
            self._note(record)
            if record.state is Health.FAULT:
                self.dispatch.ledger.out.append(TellAlert(record.board, self._alert(record)))
        for board in self.dispatch.farm.names():
            self._notice(board, now)

    def rule_of(self, board: str) -> HealthRule | None:
        """The rule that holds for this board."""
        labels = self.dispatch.farm.board(board).labels
        return next((rule for rule in self.rules if rule.fits(board, labels)), None)

    # --- what is seen ----------------------------------------------------------------------------------------

    def agent_told(self, agent: str, info: AgentInfo | None) -> None:
        """Which boards an agent has."""
        if info is None:
            self._agents.pop(agent, None)
        elif agent in self._agents or len(self._agents) < MAX_AGENTS:
            self._agents[agent] = frozenset(info.boards)

    def is_announced(self, picture: BoardPicture) -> bool:
        """Whether an agent that is there has the board in its settings."""
        if picture.agent is None or not picture.agent_online:
            return False
        return picture.name in self._agents.get(picture.agent, frozenset({picture.name}))

    def heard(self, board: str, report: WorkReport) -> None:
        """The last lines of a health job are its evidence."""
        job = self._jobs.get(board)
        if job is not None and isinstance(report, WorkLog) and report.job == job.id:
            last, tail = self._tails.get(board, (-1, ""))
            if report.seq > last:
                self._tails[board] = (report.seq, (tail + report.text)[-MAX_TAIL_LETTERS:])

    def answered(self, answer: AgentAnswered) -> None:
        """An agent's answer, perhaps to somebody else."""
        name = answer.response.transaction
        board = self._asked.pop(name, None) if name is not None else None
        record = self.records.get(board) if board is not None else None
        if record is not None and answer.verb == "netboot" and record.evidence:
            record.diagnosed(diagnosis(answer.response))
            self.changed(record)

    def _notice(self, board: str, now: Moment) -> None:
        """A board was heard of: a new one begins, and one that was in fault is to be checked."""
        rule = self.rule_of(board)
        if rule is None or not self.dispatch.farm.knows(board):
            return
        record = self.records.get(board)
        if record is None:
            state = Health.TRUSTED
            if rule.on_new:
                state = Health.TRAINING if rule.train_boots else Health.DUE
            record = Record(board, state, now.wall, why="" if state is Health.TRUSTED else "new")
            record.passed = now.wall if state is Health.TRUSTED else None
            self.records[board] = record
            self.changed(record)
        elif (
            record.state is Health.TRUSTED
            and rule.on_fault
            and self.dispatch.farm.board(board).phase is Phase.FAULT
            and board not in self.dispatch.ledger.held
        ):
            record.step(HealthEvent.ASK, now.wall, "it was in fault")
            self.changed(record)

    # --- what is done ----------------------------------------------------------------------------------------

    def look(self, changed: set[str], give: Give, now: Moment, *, ticked: bool) -> None:
        """Go on with every board that is not at an end; `changed` are those that were heard of since the last look.
        The dispatch must be up to date: who is booting now decides who may be woken."""
        if self.rules:
            for board in sorted(changed):
                self._notice(board, now)
        if ticked and now.mono >= self._due_at:
            self._due_at = now.mono + LOOK_FOR_DUE_S
            for board in self.dispatch.farm.names() if self.rules else ():
                self._notice(board, now)
            self._look_for_due(now)
        for board in sorted(self._open if ticked else self._open & changed):
            record, rule = self.records.get(board), self.rule_of(board)
            if record is None or record.state in _ENDS:
                self._open.discard(board)
            elif record.state is Health.CHECKING:
                self._look_at_job(record, rule, now)
            elif rule is None:
                # Its rule is gone, or its labels changed: nothing keeps it from work any more.
                record.step(HealthEvent.ACCEPT, now.wall)
                self.changed(record)
            elif now.mono < self._not_before.get(board, 0.0):
                continue
            elif record.state is Health.TRAINING:
                self._train(record, rule, now)
            else:
                self._begin(record, rule, give, now)

    def _look_for_due(self, now: Moment) -> None:
        for record in self.records.values():
            if record.state is not Health.TRUSTED or record.passed is None:
                continue
            rule = self.rule_of(record.board)
            if rule is None or rule.every_s is None:
                continue
            age_s = (now.wall - record.passed).total_seconds()
            # A clock that was put back must not stop the checks for ever.
            if age_s >= rule.every_s or age_s < -rule.every_s:
                record.step(HealthEvent.ASK, now.wall, "its time has come")
                self.changed(record)

    def _begin(self, record: Record, rule: HealthRule, give: Give, now: Moment) -> None:
        dispatch, board = self.dispatch, record.board
        picture = dispatch.farm.board(board)
        standing, _ = dispatch.own_standing(picture, now)
        if standing not in _FREE:
            return
        if standing is Standing.ASLEEP:
            if dispatch.room.refusal(picture.labels, now.mono) is not None:
                return
            dispatch.room.woke(board, picture.labels, now.mono)
        ledger = dispatch.ledger
        job = Job(ledger.next_number, _for_board(rule.spec, board), now.wall, submitter=SUBMITTER)
        ledger.next_number += 1
        ledger.jobs[job.id] = job
        self._check(board, job)
        ledger.save(job)
        record.job = job.id
        record.step(HealthEvent.BEGIN, now.wall, record.why)
        self.changed(record)
        give(job.number, board, standing, now)

    def _check(self, board: str, job: Job) -> None:
        self._jobs[board] = job
        self._tails.pop(board, None)
        self.dispatch.ledger.checks[job.number] = board

    def _look_at_job(self, record: Record, rule: HealthRule | None, now: Moment) -> None:
        ledger, job = self.dispatch.ledger, self._jobs.get(record.board)
        if job is not None and job.state is JobState.QUEUED:
            # The farm failed it. One try is one check; the pause between them is the rule's.
            ledger.give_up(job, job.last_fault or "the broker was restarted before it began", now)
        if job is not None and not job.state.ended:
            return
        retry_s, limit = (rule.retry_s, rule.limit) if rule is not None else (0.0, 1)
        self._not_before[record.board] = now.mono + retry_s
        _, tail = self._tails.pop(record.board, (-1, ""))
        self._jobs.pop(record.board, None)
        if job is not None:
            ledger.checks.pop(job.number, None)
        if job is not None and job.state is JobState.PASSED:
            record.step(HealthEvent.PASS, now.wall)
        elif job is None or job.state is JobState.CANCELLED:
            record.step(HealthEvent.FAIL, now.wall, "its health job was interrupted")
        else:
            why = f"{job.id} {job.state.value}: {job.reason or _first_problem(job) or 'no reason given'}"
            evidence = Evidence(now.wall, why[:1000], job.id, tail)
            self._failed(record, evidence, limit, now, booted=job.started is not None)
        self.changed(record)

    def _train(self, record: Record, rule: HealthRule, now: Moment) -> None:
        came = self.training.look(record.board, now, again=record.failures > 0)
        if came is None:
            return
        if came.took_s is not None:
            record.boots_s.append(round(came.took_s, 1))
            if len(record.boots_s) >= rule.train_boots:
                record.step(HealthEvent.BOOTED, now.wall, f"{rule.train_boots} cold boots came up")
                record.failures = 0
        else:
            good, record.boots_s = len(record.boots_s), []
            self._not_before[record.board] = now.mono + rule.retry_s
            why = f"cold boot {good + 1} of {rule.train_boots}: {came.why}"
            self._failed(record, Evidence(now.wall, why), rule.limit, now, booted=False)
        self.changed(record)

    def _failed(self, record: Record, evidence: Evidence, limit: int, now: Moment, *, booted: bool) -> None:
        record.failed(evidence, limit, now.wall)
        picture = self.dispatch.farm.board(record.board)
        if booted or picture.agent is None or not picture.agent_online or len(self._asked) >= MOST_DIAGNOSES:
            return
        self._count += 1
        name = f"health-{int(now.wall.timestamp() * 1000)}-{self._count}"
        self._asked = {known: board for known, board in self._asked.items() if board != record.board}
        self._asked[name] = record.board
        data: dict[str, object] = {"board": record.board, "boots": 1}
        self.dispatch.ledger.out.append(SendRequest(picture.agent, "netboot", name, data, now.after(DIAGNOSIS_S)))

    # --- keeping it ------------------------------------------------------------------------------------------

    def changed(self, record: Record) -> None:
        """Save a record, and let dispatch and people know."""
        ledger = self.dispatch.ledger
        ledger.out.append(SaveHealth(record.board, record))
        if record.state is Health.FAULT:
            ledger.out.append(TellAlert(record.board, self._alert(record)))
        elif record.board in ledger.unhealthy:
            ledger.out.append(TellAlert(record.board, None))
        self._note(record)

    def _note(self, record: Record) -> None:
        ledger, board = self.dispatch.ledger, record.board
        why = record.why_not(self.rule_of(board))
        if why is None:
            ledger.out_of_work.pop(board, None)
        else:
            ledger.out_of_work[board] = why
        (ledger.retired.add if record.state is Health.RETIRED else ledger.retired.discard)(board)
        (ledger.unhealthy.add if record.state is Health.FAULT else ledger.unhealthy.discard)(board)
        if record.state not in _ENDS:
            self._open.add(board)
        self.dispatch.touched.add(board)

    def drop(self, record: Record, now: Moment) -> None:
        """Whatever is under way for the board ends here: a person has decided."""
        board = record.board
        self.training.drop(board)
        self._not_before.pop(board, None)
        self._tails.pop(board, None)
        job = self._jobs.pop(board, None)
        if job is not None:
            self.dispatch.ledger.checks.pop(job.number, None)
            if not job.state.ended:
                self.dispatch.ledger.cancel(job, now)

    def forget(self, record: Record, now: Moment) -> None:
        """The board is no longer the farm's."""
        self.drop(record, now)
        board, ledger = record.board, self.dispatch.ledger
        del self.records[board]
        self._open.discard(board)
        ledger.out_of_work.pop(board, None)
        ledger.retired.discard(board)
        ledger.unhealthy.discard(board)
        ledger.out += [SaveHealth(board, None), TellAlert(board, None), ForgetBoard(board)]
        farm = self.dispatch.farm
        # What we clear comes back to us later; until then it must not be taken for a new board.
        farm.state_seen(board, None)
        farm.info_seen(board, None)
        farm.self_seen(board, None)
        self.dispatch.touched.add(board)

    def _alert(self, record: Record) -> Alert:
        last = record.evidence[-1] if record.evidence else None
        parts = [f"failed its health checks {record.failures} times: {record.why}"]
        if last is not None:
            parts += [last.diagnosis] if last.diagnosis else []
            parts += [f"its last lines: {last.log[-500:]}"] if last.log else []
        job = f"look at 'boardhand logs {last.job}', " if last is not None and last.job is not None else ""
        do = f"{job}mend it, then 'boardhand board {record.board} check', or 'accept' to trust it as it is"
        return Alert(what="; ".join(parts)[:4096], since=record.since, do=do)


def _for_board(spec: JobSpec, board: str) -> JobSpec:
    return spec.model_copy(update={"board": board})


def _first_problem(job: Job) -> str | None:
    for step in job.steps:
        if step.problem is not None or step.exit_code not in {None, 0}:
            return f"step {step.name}: {step.problem or f'exit code {step.exit_code}'}"
    return None
