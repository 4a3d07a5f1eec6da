"""The sans-IO core of the broker: `handle(happening, now)` gives the actions to carry out, saving before sending.

It decides nothing between `Disconnected` and `Settled`: a picture of the farm with holes in it would put busy boards
to sleep and run jobs twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import assert_never

from broker.before_job import HOOK_POINT, BeforeJob
from broker.farm_view import FarmView
from broker.groups.desk import GroupDesk
from broker.groups.members import members
from broker.happenings import (
    Action,
    AgentAnswered,
    AgentInfoSeen,
    AgentSeen,
    Called,
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
from broker.health.board_orders import BoardOrders
from broker.health.desk import HealthDesk
from broker.health.happenings import BoardAsked
from broker.jobs.life import Job, JobEvent
from broker.jobs.own_boot import JobBoots
from broker.jobs.work_reports import WorkReports
from broker.leases.happenings import ExtendLease, HandOver, LeaseOrder, Release, Reserve
from broker.leases.person_leases import PersonLeases
from broker.leases.power_orders import why_not_switch
from broker.leases.watch import LeaseWatch
from broker.ledger import LEASE_MARGIN_S, MAX_SEEN_TOKEN, Held, Ledger, Policy
from broker.matching.dispatch import Dispatch
from broker.matching.standing import Standing
from broker.sleep.idle_policy import IdlePolicy
from broker.sleep.policy import with_farm_rule
from broker.sleep.wake_forecast import WakeForecast
from broker.sleep.wake_room import WakeRoom
from wire.payloads import ErrorInfo
from wire.phases import ErrorKind, JobState, PowerAction, Purpose

# What a board that was away while we were gone gets to show itself or repeat its outcome, before its lease is judged.
AFTER_GAP_S = 20.0


class Scheduler:
    """One farm's scheduler. It keeps everything in memory; `restore` gives it what was committed."""

    def __init__(self, policy: Policy, session: int) -> None:
        self.policy = policy
        self.farm = FarmView()
        self.ledger = Ledger(policy)
        rules = with_farm_rule(policy.sleep, policy.idle_s, policy.min_on_s, policy.min_off_s)
        self.forecast = WakeForecast()
        self.idle = IdlePolicy(policy, session, rules, self.forecast)
        self.room = WakeRoom(policy.booting_cap, policy.shelves)
        self.dispatch = Dispatch(self.ledger, self.farm, self.idle, self.room)
        self.orders = BoardOrders(HealthDesk(self.dispatch, policy.health))
        self.gate = BeforeJob(self.ledger, self.farm)
        self.boots = JobBoots(self.ledger, self.farm, self.gate)
        self.people = PersonLeases(self.ledger, self.farm, self.dispatch, self.idle, policy.leases)
        self.groups = GroupDesk(self.ledger, self.farm, self.dispatch, self.boots, self.gate)
        self._watch = LeaseWatch(self.ledger, self.farm, self.boots, self.gate)
        self._reports = WorkReports(self.ledger, self.farm)
        self._settled = False
        self._ticked = False
        self._look_at_all = False
        self._seen_leases: set[str] = set()

    def restore(
        self,
        jobs: Iterable[Job],
        tokens: dict[str, int],
        outcomes: Iterable[tuple[str, str, int]],
        holders: dict[str, tuple[str, int]],
        next_number: int,
        now: Moment,
        *,
        other_boots: Iterable[str] = (),
        boots: Mapping[str, Iterable[float]] = MappingProxyType({}),
    ) -> None:
        """Take up what was committed before the end of our predecessor; people's leases and groups come after this,
        by `people.restore` and `groups.restore`. Nothing is sent before `Settled`.

        Args:
            jobs: jobs that have not ended.
            tokens: the last token given out per board.
            outcomes: (board, job, token) whose outcome is stored, oldest first.
            holders: the last (job, token) per board.
            next_number: the number of the next job.
            now: the time of the restart.
            other_boots: boards that may be up in a job's own boot.
            boots: how long the last boots of each board took, oldest first.
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
        self.boots.restore(list(other_boots))
        self.forecast.restore(boots)
        self.dispatch.restore(now)

    def handle(self, happening: Happening, now: Moment, *, more: bool = False) -> list[Action]:
        """Take in what happened and say what to do.

        With `more`, another happening follows at once, and what needs a look at the whole farm is left to that one.
        """
        self._begin()
        self._take_in(happening, now)
        if not more:
            self._decide(now)
        return self._end(now)

    def look_around(self, now: Moment) -> list[Action]:
        """Look at the farm after happenings that were all handed in with `more`."""
        self._begin()
        self._decide(now)
        return self._end(now)

    def explain(self, job: Job) -> None:
        """Bring the reason of a job that waits up to date, before it is shown."""
        self.dispatch.explain(job)

    def _begin(self) -> None:
        self.ledger.out = []
        self.dispatch.begin()

    def _end(self, now: Moment) -> list[Action]:
        self.dispatch.absorb(now)
        actions, self.ledger.out = self.ledger.out, []
        return actions

    def _decide(self, now: Moment) -> None:
        if not self._settled:
            return
        ticked, self._ticked = self._ticked, False
        if ticked:
            for board in self.idle.switching():
                self.idle.look(self.farm.board(board), now)
                self.dispatch.touched.add(board)
            self.dispatch.touch_timed()
            self.people.look(now)
        self.dispatch.absorb(now)
        boards = list(self.ledger.held) if ticked or self._look_at_all else sorted(self.dispatch.touched)
        self._look_at_all = False
        for board in boards:
            held = self.ledger.held.get(board)
            if held is not None:
                self._watch.look(held, now)
        self._out(self.boots.tidy(self.idle, now))
        changed = set(self.dispatch.touched)
        self._catch_up(now)
        self.orders.look(changed, self._assign, now, ticked=ticked)
        self._catch_up(now)
        self.groups.look(now, ticked=ticked)  # it wakes boards: by who boots as of now
        for job in self.dispatch.overdue(now):
            limit_s = job.spec.queue_timeout_s or 0.0
            self.ledger.give_up(job, f"no board in its queue_timeout_s of {limit_s:g} s: {job.reason}", now)
        self.dispatch.absorb(now)
        self.groups.assign(now, before_others=True)
        self.dispatch.match(lambda job, board, standing: self._assign(job, board, standing, now), now, ticked=ticked)
        self.groups.assign(now, before_others=False)
        self._catch_up(now)
        self.people.give_out_of_service(self.dispatch.pool, now, ticked=ticked)
        self.people.answer()
        if ticked:
            self._tend(now)

    def _catch_up(self, now: Moment) -> None:
        """Bring the index of boards up to what ledger and farm say."""
        self.dispatch.absorb(now)
        self._out(self.dispatch.look(now))

    def _tend(self, now: Moment) -> None:
        """Put boards to sleep that nobody needs, and wake those that are to be warm."""
        for board, power in self.idle.tend(self.dispatch.free_boards(), self.room, now):
            self.ledger.out.append(self.idle.send(board, power, now))
            self.dispatch.touched.add(board)

    def _out(self, actions: Sequence[Action]) -> None:
        self.ledger.out += actions

    def _take_in(self, happening: Happening, now: Moment) -> None:
        match happening:
            case AgentSeen() | AgentInfoSeen() | StateSeen() | InfoSeen() | SelfSeen() | LeaseSeen():
                self._see(happening, now)
            case Called():
                self.groups.called(happening, now)
            case Reported(board, report):
                self.groups.reported(board, report)
                self.orders.desk.heard(board, report)
                self._reports.take(board, report, now)
                self.dispatch.touched.add(board)
            case PowerReported():
                self._power_reported(happening, now)
            case AgentAnswered():
                self.boots.answered(happening, now)
                self.gate.answered(happening, now)
                self.orders.answered(happening)
                self._look_at_all = True
            case Submit() | Cancel() | PowerAsked() | Reserve() | ExtendLease() | Release() | HandOver() | BoardAsked():
                self._ordered(happening, now)
            case Disconnected():
                self._settled = False
                self.people.disconnected()
                self.farm.forget_presence()
                self.forecast.forget()
                self._seen_leases.clear()
            case Settled():
                self._settle(now)
            case Tick():
                self._ticked = True
            case _:
                assert_never(happening)

    # --- the farm --------------------------------------------------------------------------------------------

    def _see(self, seen: AgentSeen | AgentInfoSeen | StateSeen | InfoSeen | SelfSeen | LeaseSeen, now: Moment) -> None:
        match seen:
            case AgentSeen(agent, state):
                if self.farm.agent_seen(agent, state):
                    self.dispatch.touched |= self.farm.boards_of(agent)
            case AgentInfoSeen(agent, info):
                self.gate.agent_told(agent, asks=info is not None and HOOK_POINT in info.hooks)
                self.orders.desk.agent_told(agent, info)
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
            self.dispatch.touched.add(board)
            self.idle.look(self.farm.board(board), now)

    def _lease_seen(self, seen: LeaseSeen) -> None:
        if seen.empty:
            return
        self._seen_leases.add(seen.board)
        # A store that was lost must not give out tokens that boards and agents have already seen.
        if seen.token is not None and self.ledger.tokens.get(seen.board, 0) < seen.token <= MAX_SEEN_TOKEN:
            self.ledger.tokens[seen.board] = seen.token

    def _settle(self, now: Moment) -> None:
        self._settled = self._look_at_all = True
        self.dispatch.touch_all()
        self.idle.restart()
        self.orders.desk.restart(now)
        self.people.settle(now)
        for board in sorted(self._seen_leases - set(self.ledger.held) - set(self.ledger.people)):
            self.ledger.out.append(ClearLease(board))
        self._seen_leases.clear()
        for held in self.ledger.held.values():
            held.missing_since = None
            if held.gate is not None:
                held.gate.lost = True  # its answer may have come meanwhile
            held.offers = 0
            held.deadline = now.mono
            held.wake_until = max(held.wake_until, now.mono + self.policy.wake_timeout_s)
            if held.expires < now.mono + AFTER_GAP_S or held.job.state is JobState.WAKING:
                lasts_s = self.policy.wake_timeout_s if held.job.state is JobState.WAKING else AFTER_GAP_S
                self.ledger.extend(held, now, lasts_s + LEASE_MARGIN_S)
            else:
                self.ledger.put_lease(held)

    def _power_reported(self, reported: PowerReported, now: Moment) -> None:
        self.dispatch.touched.add(reported.board)
        result = reported.result
        if self.boots.power_reported(reported.board, result, now) or self.people.power.reported(reported.board, result):
            return
        held = self.ledger.held.get(reported.board)
        if held is not None and held.job.state is JobState.WAKING and result.id == held.wake_id:
            if not result.ok:
                why = result.error.message if result.error is not None else "the agent gave no reason"
                self.ledger.fault(held, f"could not be switched on: {why}", now)
                self.ledger.powering.pop(reported.board, None)  # it will not come up any more
            return
        self._out(self.idle.answered(reported.board, result))

    # --- requests --------------------------------------------------------------------------------------------

    def _ordered(self, order: Submit | Cancel | PowerAsked | BoardAsked | LeaseOrder, now: Moment) -> None:
        match order:
            case Submit():
                self._submit(order, now)
            case Cancel():
                self._cancel(order, now)
            case PowerAsked():
                self._power_asked(order, now)
            case BoardAsked():
                self.orders.take(order, now)
            case _:
                self.people.order(order, now)

    def _submit(self, asked: Submit, now: Moment) -> None:
        if len(self.ledger.jobs) + len(members(asked.spec)) >= self.policy.max_queued:
            told = f"{self.policy.max_queued} jobs are waiting or running, and no more are taken: try later"
            self._refuse(asked.tag, ErrorKind.BUSY, told)
            return
        if asked.spec.group is not None:
            self.groups.submit(asked, now)
            return
        job = Job(self.ledger.next_number, asked.spec, now.wall, submitter=asked.submitter)
        self.ledger.next_number += 1
        self.ledger.jobs[job.id] = job
        self.ledger.save(job)
        self.ledger.out.append(Reply(asked.tag, {"job": job.id}))

    def _cancel(self, asked: Cancel, now: Moment) -> None:
        job = self.ledger.jobs.get(asked.job)
        if job is None:
            self._refuse(asked.tag, ErrorKind.NOT_FOUND, f"{asked.job} is not waiting or running", "job")
            return
        if not self.groups.cancel(job, now):
            self.ledger.cancel(job, now)
        self.ledger.out.append(Reply(asked.tag, {"job": job.id, "state": job.state.value}))

    def _power_asked(self, asked: PowerAsked, now: Moment) -> None:
        board = asked.board
        if board not in self.farm.names():
            self._refuse(asked.tag, ErrorKind.UNKNOWN_BOARD, f"board {board} is not known", "board")
            return
        self._catch_up(now)
        picture = self.farm.board(board)
        refusal: ErrorInfo | None
        if not self._settled:
            told = "the broker has just connected: try again in a few seconds"
            refusal = ErrorInfo(kind=ErrorKind.BUSY, message=told)
        else:
            full = self.room.refusal(picture.labels, now.mono)
            refusal = why_not_switch(self.ledger, self.idle, picture, asked.power, full)
        if refusal is not None:
            self._refuse(asked.tag, refusal.kind, refusal.message, "board")
            return
        command = self.idle.send(board, asked.power, now)
        self.dispatch.touched.add(board)
        self._out([command, Reply(asked.tag, {"board": board, "id": command.id})])

    def _refuse(self, tag: str, kind: ErrorKind, message: str, key: str | None = None) -> None:
        self.ledger.out.append(Reply(tag, {}, ErrorInfo(kind=kind, message=message, key=key)))

    # --- giving out boards -----------------------------------------------------------------------------------

    def _assign(self, number: int, board: str, standing: Standing, now: Moment) -> None:
        if self.people.give(number, board, standing, now):
            return
        job = self.ledger.jobs[f"job-{number}"]
        self.idle.taken(board)
        held = self.ledger.lease(job, board, now, self.policy.wake_timeout_s + LEASE_MARGIN_S)
        if job.spec.boot is not None:
            self.boots.begin(held, self.farm.board(board), now)
            return
        if standing is Standing.READY:
            held.wake_until = now.mono + self.policy.wake_timeout_s
            self.gate.offer(held, self.farm.board(board), now)
            return
        held.wake_until = now.mono + self.policy.wake_timeout_s
        held.deadline = now.mono + self.policy.power_timeout_s
        held.commanded = standing is Standing.ASLEEP
        job.step(JobEvent.WAKE)
        job.reason = f"{board} is coming up"
        self.ledger.save(job)
        if held.commanded:
            expires = now.after(self.policy.power_timeout_s)
            self.ledger.out.append(
                SendPower(held.board, PowerAction.ON, held.wake_id, Purpose.WAKE, held.token, expires)
            )
