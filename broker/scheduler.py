"""The sans-IO core of the broker: `handle(happening, now)` gives the actions to carry out, saving before sending.

It decides nothing between `Disconnected` and `Settled`: a picture of the farm with holes in it would put busy boards
to sleep and run jobs twice.
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

from broker.farm_view import BoardPicture, FarmView
from broker.happenings import (
    Action,
    AgentSeen,
    Announce,
    Cancel,
    ClearLease,
    Disconnected,
    Happening,
    InfoSeen,
    LeaseSeen,
    Moment,
    PowerAsked,
    PowerReported,
    Reply,
    Reported,
    SelfSeen,
    SendPower,
    Settled,
    StateSeen,
    Submit,
    Tick,
)
from broker.idle_policy import IdlePolicy
from broker.job import Job, JobEvent
from broker.lease_watch import LeaseWatch
from broker.ledger import LEASE_MARGIN_S, MAX_SEEN_TOKEN, Held, Ledger, Policy
from broker.matching import Assignment, Candidate, Standing, Wish, plan
from broker.work_reports import WorkReports
from wire.payloads import ErrorInfo
from wire.phases import ErrorKind, JobState, Phase, Power, PowerAction, Purpose

# What a board that was away while we were gone gets to show itself or repeat its outcome, before its lease is judged.
AFTER_GAP_S = 20.0


class Scheduler:
    """One farm's scheduler. It keeps everything in memory; `restore` gives it what was committed."""

    def __init__(self, policy: Policy, session: int) -> None:
        self.policy = policy
        self.farm = FarmView()
        self.ledger = Ledger(policy)
        self.idle = IdlePolicy(policy, session)
        self._watch = LeaseWatch(self.ledger, self.farm)
        self._reports = WorkReports(self.ledger, self.farm)
        self._settled = False
        self._dirty = False
        self._seen_leases: set[str] = set()

    def restore(
        self,
        jobs: Iterable[Job],
        tokens: dict[str, int],
        outcomes: Iterable[tuple[str, str, int]],
        holders: dict[str, tuple[str, int]],
        next_number: int,
        now: Moment,
    ) -> None:
        """Take up what was committed before the end of our predecessor. Nothing is sent before `Settled`.

        Args:
            jobs: jobs that have not ended.
            tokens: the last token given out per board.
            outcomes: (board, job, token) whose outcome is stored, oldest first.
            holders: the last (job, token) per board.
            next_number: the number of the next job.
            now: the time of the restart.
        """
        ledger = self.ledger
        ledger.tokens = dict(tokens)
        ledger.last_holder = dict(holders)
        ledger.next_number = next_number
        for board, job_id, token in outcomes:
            ledger.remember_outcome(board, job_id, token)
        for job in jobs:
            ledger.jobs[job.id] = job
            if job.board is None or job.token is None:
                continue
            expires = now.until(job.expires) if job.expires is not None else now.mono
            held = Held(job, job.board, job.token, now.wall, expires, commanded=True)
            ledger.held[job.board] = held

    def handle(self, happening: Happening, now: Moment, *, more: bool = False) -> list[Action]:
        """Take in what happened and say what to do.

        With `more`, another happening follows at once, and what needs a look at the whole farm is left to that one.
        """
        self.ledger.out = []
        self._take_in(happening, now)
        if self._settled and not more:
            for held in list(self.ledger.held.values()):
                self._watch.look(held, now)
            ticked = isinstance(happening, Tick)
            if self._dirty or ticked:
                self._dirty = False
                self._end_overdue(now)
                self._match(now)
            if ticked:
                self._out(self.idle.sleep_idle(self.farm, set(self.ledger.held), now))
        actions, self.ledger.out = self.ledger.out, []
        return actions

    def _out(self, actions: Sequence[Action]) -> None:
        self.ledger.out += actions

    def _take_in(self, happening: Happening, now: Moment) -> None:
        match happening:
            case AgentSeen() | StateSeen() | InfoSeen() | SelfSeen() | LeaseSeen():
                self._see(happening, now)
            case Reported(board, report):
                self._dirty |= self._reports.take(board, report, now)
            case PowerReported():
                self._power_reported(happening, now)
            case Submit():
                self._submit(happening, now)
            case Cancel():
                self._cancel(happening, now)
            case PowerAsked():
                self._power_asked(happening, now)
            case Disconnected():
                self._settled = False
                self.farm.forget_presence()
                self._seen_leases.clear()
            case Settled():
                self._settle(now)
            case Tick():
                pass
            case _:
                assert_never(happening)

    # --- the farm --------------------------------------------------------------------------------------------

    def _see(self, seen: AgentSeen | StateSeen | InfoSeen | SelfSeen | LeaseSeen, now: Moment) -> None:
        match seen:
            case AgentSeen(agent, state):
                self._dirty |= self.farm.agent_seen(agent, state)
            case StateSeen(board, board_state):
                self._seen(board, counted=self.farm.state_seen(board, board_state), now=now)
            case InfoSeen(board, info):
                self._seen(board, counted=self.farm.info_seen(board, info), now=now)
            case SelfSeen(board, said):
                self._seen(board, counted=self.farm.self_seen(board, said), now=now)
                self._reports.check_leftover(board)
            case LeaseSeen():
                self._lease_seen(seen)
            case _:
                assert_never(seen)

    def _seen(self, board: str, *, counted: bool, now: Moment) -> None:
        if counted:
            self._dirty = True
            self.idle.look(self.farm.board(board), now)

    def _lease_seen(self, seen: LeaseSeen) -> None:
        if seen.empty:
            return
        self._seen_leases.add(seen.board)
        # A store that was lost must not give out tokens that boards and agents have already seen.
        if seen.token is not None and self.ledger.tokens.get(seen.board, 0) < seen.token <= MAX_SEEN_TOKEN:
            self.ledger.tokens[seen.board] = seen.token

    def _settle(self, now: Moment) -> None:
        self._settled = True
        self._dirty = True
        self.idle.restart()
        for board in sorted(self._seen_leases - set(self.ledger.held)):
            self.ledger.out.append(ClearLease(board))
        self._seen_leases.clear()
        for held in self.ledger.held.values():
            held.missing_since = None
            held.offers = 0
            held.deadline = now.mono
            held.wake_until = max(held.wake_until, now.mono + self.policy.wake_timeout_s)
            if held.expires < now.mono + AFTER_GAP_S or held.job.state is JobState.WAKING:
                lasts_s = self.policy.wake_timeout_s if held.job.state is JobState.WAKING else AFTER_GAP_S
                self.ledger.extend(held, now, lasts_s + LEASE_MARGIN_S)
            else:
                self.ledger.put_lease(held)

    def _power_reported(self, reported: PowerReported, now: Moment) -> None:
        result = reported.result
        held = self.ledger.held.get(reported.board)
        if held is not None and held.job.state is JobState.WAKING and result.id == held.wake_id:
            if not result.ok:
                why = result.error.message if result.error is not None else "the agent gave no reason"
                self.ledger.fault(held, f"could not be switched on: {why}", now)
                self.ledger.powering.pop(reported.board, None)  # it will not come up any more
                self._dirty = True
            return
        self._out(self.idle.answered(reported.board, result))
        self._dirty = True

    # --- requests --------------------------------------------------------------------------------------------

    def _submit(self, asked: Submit, now: Moment) -> None:
        if len(self.ledger.jobs) >= self.policy.max_queued:
            told = f"{self.policy.max_queued} jobs are waiting or running, and no more are taken: try later"
            self._refuse(asked.tag, ErrorKind.BUSY, told)
            return
        job = Job(self.ledger.next_number, asked.spec, now.wall)
        self.ledger.next_number += 1
        self.ledger.jobs[job.id] = job
        self.ledger.save(job)
        self._dirty = True
        self.ledger.out.append(Reply(asked.tag, {"job": job.id}))

    def _cancel(self, asked: Cancel, now: Moment) -> None:
        job = self.ledger.jobs.get(asked.job)
        if job is None:
            self._refuse(asked.tag, ErrorKind.NOT_FOUND, f"{asked.job} is not waiting or running", "job")
            return
        self.ledger.cancel(job, now)
        self._dirty = True
        self.ledger.out.append(Reply(asked.tag, {"job": job.id, "state": job.state.value}))

    def _power_asked(self, asked: PowerAsked, now: Moment) -> None:
        board = asked.board
        if board not in self.farm.names():
            self._refuse(asked.tag, ErrorKind.UNKNOWN_BOARD, f"board {board} is not known", "board")
            return
        refusal = self._why_not_switch(self.farm.board(board), asked.power, now)
        if refusal is not None:
            self._refuse(asked.tag, refusal.kind, refusal.message, "board")
            return
        command = self.idle.send(board, asked.power, now)
        self._out([command, Reply(asked.tag, {"board": board, "id": command.id})])

    def _why_not_switch(self, picture: BoardPicture, power: PowerAction, now: Moment) -> ErrorInfo | None:
        board = picture.name
        kind, why = ErrorKind.BUSY, None
        if not self._settled:
            why = "the broker has just connected: try again in a few seconds"
        elif self.idle.pending(board) is not None:
            why = f"{board} is being switched: try again in a few seconds"
        elif power is PowerAction.ON and picture.power is not Power.ON and self._boot_slots(now) <= 0:
            why = f"{self.policy.booting_cap} boards are booting: try again later"
        elif (held := self.ledger.held.get(board)) is not None:
            kind, why = ErrorKind.NOT_ALLOWED, f"{board} is leased to {held.job.id}: cancel that first"
        elif picture.out_of_service is not None:
            kind, why = ErrorKind.NOT_ALLOWED, f"{board} is out of service: {picture.out_of_service}"
        elif power is PowerAction.OFF and (picture.work is not None or picture.phase is Phase.BUSY):
            kind, why = ErrorKind.NOT_ALLOWED, f"{board} is at work"
        return None if why is None else ErrorInfo(kind=kind, message=why)

    def _refuse(self, tag: str, kind: ErrorKind, message: str, key: str | None = None) -> None:
        self.ledger.out.append(Reply(tag, {}, ErrorInfo(kind=kind, message=message, key=key)))

    # --- giving out boards -----------------------------------------------------------------------------------

    def _boot_slots(self, now: Moment) -> int:
        """How many boards may be woken now. A board counts while it comes up, whoever switched it on."""
        booting = {name for name in self.farm.names() if self.farm.board(name).coming_up}
        booting |= {board for board, held in self.ledger.held.items() if held.job.state is JobState.WAKING}
        booting |= self.idle.waking()
        for board in self.ledger.being_switched_on(now):
            picture = self.farm.board(board)
            if picture.phase is None or picture.asleep:
                booting.add(board)
        return self.policy.booting_cap - len(booting)

    def standing(self, picture: BoardPicture, now: Moment) -> tuple[Standing, str]:  # noqa: PLR0911  # a ladder
        """How near the board is to taking work, and why not if it cannot."""
        name = picture.name
        if (why := picture.out_of_service) is not None:
            return Standing.OUT, why
        if name in self.ledger.held or self.idle.pending(name) is not None:
            return Standing.TAKEN, ""
        if self.ledger.benched_until(name, now) is not None:
            return Standing.TAKEN, ""
        if picture.ready:
            return Standing.READY, ""
        if picture.phase is Phase.READY and not picture.online:
            return Standing.OUT, "ready by its agent's word, but it does not answer"
        if picture.coming_up:
            return Standing.COMING, ""
        return (Standing.ASLEEP, "") if picture.asleep else (Standing.TAKEN, "")

    def _candidates(self, now: Moment) -> list[Candidate]:
        found = []
        for name in self.farm.names():
            picture = self.farm.board(name)
            standing, why = self.standing(picture, now)
            found.append(Candidate(name, picture.labels, standing, why))
        return found

    def _match(self, now: Moment) -> None:
        queue = self.ledger.queue()
        if not queue:
            return
        wishes = [Wish(job.id, job.needs, frozenset(job.avoid)) for job in queue]
        made = plan(wishes, self._candidates(now), self._boot_slots(now))
        for assignment in made.assignments:
            self._assign(assignment, now)
        for job_id, reason in made.reasons.items():
            job = self.ledger.jobs[job_id]
            told = f"{reason} (before: {job.last_fault})" if job.last_fault else reason
            if told != job.reason:
                job.reason = told
                self.ledger.out.append(Announce(job.summary()))

    def _assign(self, given: Assignment, now: Moment) -> None:
        job = self.ledger.jobs[given.job]
        self.idle.taken(given.board)
        held = self.ledger.lease(job, given.board, now, self.policy.wake_timeout_s + LEASE_MARGIN_S)
        if given.standing is Standing.READY:
            self.ledger.offer(held, now)
            return
        held.wake_until = now.mono + self.policy.wake_timeout_s
        held.deadline = now.mono + self.policy.power_timeout_s
        held.commanded = given.standing is Standing.ASLEEP
        job.step(JobEvent.WAKE)
        job.reason = f"{given.board} is coming up"
        self.ledger.save(job)
        if held.commanded:
            expires = now.after(self.policy.power_timeout_s)
            self.ledger.out.append(
                SendPower(held.board, PowerAction.ON, held.wake_id, Purpose.WAKE, held.token, expires)
            )

    def _end_overdue(self, now: Moment) -> None:
        for job in self.ledger.queue():
            limit_s = job.spec.queue_timeout_s
            if limit_s is not None and (now.wall - job.submitted).total_seconds() >= limit_s:
                self.ledger.give_up(job, f"no board in its queue_timeout_s of {limit_s:g} s: {job.reason}", now)
