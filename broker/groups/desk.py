"""Groups: jobs for several boards at once. They get their boards together, begin together, and fail together.

A group's own job is never leased; it shows how its members, one job per board, stand as a whole. Nothing is held for
a group that waits. Once it has its boards they come up one by one as there is room to wake, and the work is offered
when all are ready. If the farm fails one of them, the others are taken back and the whole group waits again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from broker.before_job import BeforeJob
from broker.farm_view import FarmView
from broker.groups.calls import GroupCalls, Meeting
from broker.groups.group import Group
from broker.groups.matching import Wish, choose, could_do
from broker.groups.members import members
from broker.groups.multinode_payloads import WorkCall
from broker.happenings import (
    Announce,
    Called,
    Moment,
    Reply,
    SaveLog,
    SendAnswer,
    SendPower,
    Submit,
    TimelineEntry,
)
from broker.jobs.life import Job, JobEvent
from broker.jobs.own_boot import JobBoots
from broker.jobs.work_reports import MAX_LOG_LETTERS
from broker.ledger import LEASE_MARGIN_S, MAX_START_FAULTS, Held, Ledger
from broker.matching.dispatch import Dispatch
from broker.matching.standing import Standing
from broker.matching.why_waiting import what_is_missing
from wire.payloads import MAX_SHORT_TEXT, StepResult, WorkLog, WorkReport
from wire.phases import JobState, PowerAction, Purpose

_BEFORE_OFFER = {JobState.QUEUED, JobState.WAKING}
"""Of a member that has a board; it is queued until there is room to wake that."""
_VERDICTS = {JobState.PASSED, JobState.FAILED}
_FALLEN = {JobState.ERROR, JobState.CANCELLED}


@dataclass(slots=True)
class GroupDesk:
    """All groups that have not ended, by the numbers of their own jobs."""

    ledger: Ledger
    farm: FarmView
    dispatch: Dispatch
    boots: JobBoots
    gate: BeforeJob
    groups: dict[int, Group] = field(default_factory=dict)
    _new: bool = False
    """A group waits that was not looked at yet."""
    _seen: tuple[int, int] = (-1, -1)
    """What the pool was when all that wait were looked at."""

    # --- coming and going ------------------------------------------------------------------------------------

    def submit(self, asked: Submit, now: Moment) -> None:
        """Take the group in, under the next numbers."""
        ledger, number = self.ledger, self.ledger.next_number
        parts = members(asked.spec)
        made = [Job(number, asked.spec, now.wall, submitter=asked.submitter, group=number)]
        for n, part in enumerate(parts, number + 1):
            made.append(Job(n, part.spec, now.wall, submitter=asked.submitter, group=number))
        ledger.next_number += len(made)
        for job in made:
            ledger.jobs[job.id] = job
            job.reason = None if job is made[0] else f"waits for the other boards of {made[0].id}"
            ledger.save(job)
        self._take_up(Group(made[0], parts, made[1:]))
        told = [{"job": job.id, "role": part.role} for job, part in zip(made[1:], parts, strict=True)]
        ledger.out.append(Reply(asked.tag, {"job": made[0].id, "members": told}))

    def _take_up(self, group: Group) -> None:
        self.groups[group.job.number] = group
        self._new = True
        self.dispatch.pool.ask_for(want.label for job in group.jobs for want in job.needs.wants)

    def restore(self, ended: Iterable[Job], meetings: Iterable[Meeting], now: Moment) -> None:
        """Take up the groups among the ledger's jobs. `ended` are members of theirs whose part is over."""
        over, stored = {job.number: job for job in ended}, list(meetings)
        for job in [job for job in self.ledger.jobs.values() if job.spec.group is not None]:
            parts = members(job.spec)
            numbers = range(job.number + 1, job.number + 1 + len(parts))
            found = [self.ledger.jobs.get(f"job-{n}") or over.get(n) for n in numbers]
            group = Group(job, parts, [one for one in found if one is not None])
            if len(group.jobs) != len(parts):  # a store that was mended by hand
                self.ledger.give_up(job, "its members are not in the store", now)
                continue
            for one in (job, *group.jobs):
                one.group = job.number
            self._take_up(group)
            if job.state is not JobState.QUEUED:
                self._begin_calls(group)
                if group.calls is not None:
                    group.calls.restore(stored)
            for one in group.jobs:
                held = self.ledger.held.get(one.board or "")
                if held is not None and held.job is one:
                    held.env = self._env(group, one)
                    held.together = one.state in _BEFORE_OFFER
                    held.waits_for_room = one.state is JobState.QUEUED

    def cancel(self, job: Job, now: Moment) -> bool:
        """Cancel the whole group that the job belongs to; False where it is in none."""
        group = self.groups.get(job.group) if job.group is not None else None
        if group is None:
            return False
        for one in (*group.jobs, group.job):
            if one.id in self.ledger.jobs:
                self.ledger.cancel(one, now)
        del self.groups[group.job.number]
        return True

    def _overdue(self, now: Moment) -> None:
        """Give up groups whose time in the queue is over, and calls that waited too long."""
        for group in list(self.groups.values()):
            limit_s = group.job.spec.queue_timeout_s
            waited_s = (now.wall - group.job.submitted).total_seconds()
            if group.job.state is JobState.QUEUED and limit_s is not None and waited_s >= limit_s:
                self._give_up(group, f"no boards in its queue_timeout_s of {limit_s:g} s: {group.job.reason}", now)
            elif group.calls is not None:
                group.calls.look(now)

    # --- giving out boards -----------------------------------------------------------------------------------

    def assign(self, now: Moment, *, before_others: bool) -> None:
        """Give boards to groups that can have all of theirs.

        With `before_others`, only to those that are as urgent as the most urgent of the other jobs that wait.
        """
        pool = self.dispatch.pool
        if not self._new and self._seen == (pool.gains, pool.service):
            return
        waiting = [group for group in self.groups.values() if group.job.state is JobState.QUEUED]
        if not before_others:
            self._new, self._seen = False, (pool.gains, pool.service)
        if not waiting:
            return
        in_vain: set[tuple[Wish, ...]] = set()  # boards only become fewer in here
        urgent = self._most_urgent() if before_others else None
        for group in sorted(waiting, key=lambda group: group.job.urgency):
            if urgent is not None and group.job.spec.priority < urgent:
                return
            wishes = tuple(Wish(job.needs, frozenset(job.avoid)) for job in group.jobs)
            chosen = choose(wishes, pool) if wishes not in in_vain else None
            if chosen is None:
                in_vain.add(wishes)
                if group.told != pool.service and not before_others:
                    self._tell_why(group)
                continue
            self._begin(group, [(entry.name, entry.standing) for entry in chosen], now)

    def _most_urgent(self) -> int | None:
        heads = (line.head(self.dispatch.shares) for line in self.dispatch.waiting.lines.values())
        return max((-key[0] for key in heads if key is not None), default=None)

    def _begin(self, group: Group, given: Sequence[tuple[str, Standing]], now: Moment) -> None:
        job, policy = group.job, self.ledger.policy
        job.attempt += 1
        job.step(JobEvent.WAKE)
        job.reason = f"its boards come up: {', '.join(board for board, _ in given)}"
        self.ledger.save(job)
        for member, (board, standing) in zip(group.jobs, given, strict=True):
            self.dispatch.idle.taken(board)
            held = self.ledger.lease(member, board, now, policy.wake_timeout_s + LEASE_MARGIN_S)
            entry = self.dispatch.pool.entries[board]
            self.dispatch.pool.put(board, entry.labels, Standing.TAKEN, boot_s=entry.rank[1])
            held.together = True
            held.wake_until = now.mono + policy.wake_timeout_s
            held.deadline = now.mono + policy.power_timeout_s
            boots = member.spec.boot is not None
            held.waits_for_room = boots or standing is Standing.ASLEEP
            if not held.waits_for_room:
                member.step(JobEvent.WAKE)
            member.reason = f"waits for the other boards of {job.id}"
            self.ledger.save(member)
            if standing is Standing.READY and not boots:
                self.gate.offer(held, self.farm.board(board), now)
            self._note(group, f"{group.name_of(member)} is {member.id} on {board}", now)
        self._begin_calls(group)
        for member in group.jobs:
            if (taken := self._held(member)) is not None:
                taken.env = self._env(group, member)
        self._bring_up(group, now)

    def _begin_calls(self, group: Group) -> None:
        job = group.job
        group.calls = GroupCalls.of(self.ledger, job.number, job.attempt, job.spec.call_timeout_s, dict(group.boards))

    def _env(self, group: Group, member: Job) -> dict[str, str]:
        lines = "\n".join(f"{board}\t{role}" for board, role in group.boards)
        return {"BOARDHAND_GROUP": lines, "BOARDHAND_ROLE": group.parts[group.jobs.index(member)].role}

    def _tell_why(self, group: Group) -> None:
        pool = self.dispatch.pool
        group.told = pool.service
        reason = None
        for job in group.jobs:
            if not any(could_do(job.needs, entry) for entry in pool.entries.values()):
                reason = f"{group.name_of(job)}: {what_is_missing(job.needs, pool)}"
                break
        if reason is None:
            known = sum(any(could_do(job.needs, entry) for job in group.jobs) for entry in pool.entries.values())
            reason = f"waits for {len(group.jobs)} boards to be free at once"
            if known < len(group.jobs):
                reason = f"needs {len(group.jobs)} boards at once, and only {known} known ones would do"
        if group.job.last_fault:
            reason += f" (before: {group.job.last_fault})"
        if reason != group.job.reason:
            group.job.reason = reason
            self.ledger.out.append(Announce(group.job.summary()))

    # --- following them --------------------------------------------------------------------------------------

    def look(self, now: Moment, *, ticked: bool) -> None:
        """Bring each group that has its boards forward as its members went."""
        if ticked:
            self._overdue(now)
        for group in list(self.groups.values()):
            if group.job.state is JobState.QUEUED:
                continue
            self._bring_up(group, now)
            fallen = [job for job in group.jobs if job.state in _FALLEN or (not job.state.ended and job.board is None)]
            if fallen:
                self._fall(group, fallen[0], now)
                continue
            if group.calls is not None:
                for job in group.jobs:
                    if job.state.ended and job.board is not None:
                        group.calls.ended(job.board, now)
            self._follow(group, now)

    def _bring_up(self, group: Group, now: Moment) -> None:
        waiting = [held for job in group.jobs if (held := self._held(job)) is not None and held.together]
        if not waiting:
            return
        for held in waiting:
            picture = self.farm.board(held.board)
            if held.ready and picture.ready:
                held.ready_boot = held.ready_boot or picture.boot_id
                if held.ready_boot != picture.boot_id:
                    self.ledger.fault(held, "restarted while it waited for the other boards", now)
                    return
            if held.expires - now.mono < self.ledger.policy.wake_timeout_s / 2:
                self.ledger.extend(held, now, self.ledger.policy.wake_timeout_s + LEASE_MARGIN_S)
            if held.waits_for_room:
                self._wake(held, now)
        if all(held.ready and self.farm.board(held.board).ready for held in waiting) and len(waiting) == len(
            group.jobs
        ):
            for held in waiting:
                held.together = held.ready = False
                self.ledger.offer(held, now)

    def _wake(self, held: Held, now: Moment) -> None:
        picture, policy = self.farm.board(held.board), self.ledger.policy
        boots = held.job.spec.boot is not None
        if not boots and not picture.asleep:
            held.waits_for_room = False  # somebody else has switched it on
            held.job.step(JobEvent.WAKE)
            self.ledger.save(held.job)
            return
        if self.dispatch.room.refusal(picture.labels, now.mono) is not None:
            return
        held.waits_for_room = False
        self.dispatch.room.woke(held.board, picture.labels, now.mono)
        self.ledger.extend(held, now, policy.wake_timeout_s + LEASE_MARGIN_S)
        held.wake_until = now.mono + policy.wake_timeout_s
        held.deadline = now.mono + policy.power_timeout_s
        if boots:
            self.boots.begin(held, picture, now)
            return
        held.commanded = True
        held.job.step(JobEvent.WAKE)
        self.ledger.save(held.job)
        expires = now.after(policy.power_timeout_s)
        self.ledger.out.append(SendPower(held.board, PowerAction.ON, held.wake_id, Purpose.WAKE, held.token, expires))

    def _held(self, job: Job) -> Held | None:
        held = self.ledger.held.get(job.board or "")
        return held if held is not None and held.job is job else None

    def _follow(self, group: Group, now: Moment) -> None:
        job, states = group.job, {member.state for member in group.jobs}
        before = job.state
        if job.state is JobState.WAKING and not states & _BEFORE_OFFER:
            job.step(JobEvent.OFFER)
            job.reason = None
        if job.state is JobState.OFFERED and states - {JobState.OFFERED}:
            job.step(JobEvent.ACCEPT)
            job.started = now.wall
        if not all(state in _VERDICTS for state in states):
            if job.state is not before:
                self.ledger.save(job)
            return
        job.steps = [self._result(group, member) for member in group.jobs]
        failed = [member for member in group.jobs if member.state is JobState.FAILED]
        reason = f"{group.name_of(failed[0])}: {failed[0].reason}" if failed else None
        del self.groups[job.number]
        self.ledger.end(job, JobEvent.FAIL if failed else JobEvent.PASS, reason, now)

    def _result(self, group: Group, member: Job) -> StepResult:
        passed = member.state is JobState.PASSED
        began, ended = member.started or member.submitted, member.ended or member.submitted
        return StepResult(
            name=f"{group.name_of(member)} on {member.board} ({member.id})"[:MAX_SHORT_TEXT],
            exit_code=0 if passed else 1 if member.state is JobState.FAILED else None,
            took_s=max(0.0, (ended - began).total_seconds()),
            problem=member.reason,
            passed=passed,
        )

    # --- when the farm fails one -----------------------------------------------------------------------------

    def _fall(self, group: Group, fallen: Job, now: Moment) -> None:
        """One member has no board any more: all give theirs back, and the group waits again or is given up."""
        job = group.job
        why = f"{group.name_of(fallen)}: {fallen.last_fault or fallen.reason or fallen.state.value}"
        if any(member.state in _VERDICTS for member in group.jobs):
            self._give_up(group, f"{why}; another member had ended already, so the group is not run again", now)
            return
        ran, begun = (sum(counts) for counts in zip(*((m.run_faults, m.start_faults) for m in group.jobs), strict=True))
        if fallen.state is not JobState.QUEUED or ran >= job.spec.attempts:
            self._give_up(group, f"{why}; all {job.spec.attempts} attempts are used" if ran else why, now)
        elif begun >= MAX_START_FAULTS:
            self._give_up(group, f"{why}; its boards failed to take it {begun} times", now)
        else:
            for member in group.jobs:
                if (held := self._held(member)) is not None:
                    self.ledger.withdraw(held, f"the group waits again: {why}", now)
            group.calls = group.told = None
            self._new = True
            job.step(JobEvent.RETRY)
            job.last_fault = job.reason = why
            job.started = None
            self.ledger.save(job)

    def _give_up(self, group: Group, why: str, now: Moment) -> None:
        for member in group.jobs:
            if (held := self._held(member)) is not None:
                self.ledger.withdraw(held, f"the group is given up: {why}", now)
            if member.id in self.ledger.jobs:
                self.ledger.give_up(member, f"the group is given up: {why}", now)
        group.job.steps = [self._result(group, member) for member in group.jobs]
        del self.groups[group.job.number]
        self.ledger.give_up(group.job, why, now)

    # --- what its boards say ---------------------------------------------------------------------------------

    def called(self, happened: Called, now: Moment) -> None:
        """A MultiNode call."""
        board, call = happened.board, happened.call
        held = self.ledger.current(board, call.job, call.token)
        if held is None:
            self._refuse(board, call, "the lease of this job has ended")
            return
        self.ledger.accept(held, self.farm.board(board).boot_id, now)
        group = self.groups.get(held.job.group) if held.job.group is not None else None
        if group is None or group.calls is None:
            self._refuse(board, call, "this job has no group: its file has no 'group'")
            return
        group.calls.called(board, call, now)

    def _refuse(self, board: str, call: WorkCall, why: str) -> None:
        self.ledger.out.append(SendAnswer(board, call.job, call.token, call.call, ok=False, text=why))

    def reported(self, board: str, report: WorkReport) -> None:
        """What a member prints stands in the group's own log too, under its board."""
        if not isinstance(report, WorkLog):
            return
        held = self.ledger.current(board, report.job, report.token)
        group = self.groups.get(held.job.group) if held is not None and held.job.group is not None else None
        if held is None or group is None or held.log_letters > MAX_LOG_LETTERS:
            return
        place = group.jobs.index(held.job)
        step = f"{board} ({group.parts[place].role}): {report.step or ''}"[:MAX_SHORT_TEXT]
        copy = report.model_copy(update={"seq": report.seq * len(group.jobs) + place, "step": step})
        self.ledger.out.append(SaveLog(group.job.number, group.job.attempt, copy))

    def _note(self, group: Group, what: str, now: Moment) -> None:
        self.ledger.out.append(TimelineEntry(group.job.number, group.job.attempt, now.wall, what))
