"""What each lease waits for, and when it has waited long enough."""

from dataclasses import dataclass

from broker.before_job import BeforeJob
from broker.farm_view import BoardPicture, FarmView
from broker.happenings import Moment, SendPower
from broker.jobs.own_boot import JobBoots
from broker.ledger import Held, Ledger
from wire.phases import JobState, Phase, PowerAction, Purpose

_TAKEN_OUT = {Phase.FAULT, Phase.MAINTENANCE, Phase.UNCLAIMED}


@dataclass(slots=True)
class LeaseWatch:
    """Looks at one lease after every happening and tick; changes it through the ledger."""

    ledger: Ledger
    farm: FarmView
    boots: JobBoots
    gate: BeforeJob

    def look(self, held: Held, now: Moment) -> None:
        if self.ledger.held.get(held.board) is not held:
            return
        picture = self.farm.board(held.board)
        running = held.job.state is JobState.RUNNING
        if picture.phase in _TAKEN_OUT:
            if running:
                self.ledger.stop(held, "the board was taken out of service")
            self.ledger.fault(held, f"the board is {picture.out_of_service}", now)
        elif now.mono >= held.expires:
            self._expired(held, picture, now)
        elif running:
            self._running(held, picture, now)
        elif held.job.state is JobState.OFFERED:
            self._offered(held, picture, now)
        elif held.ready and picture.asleep:
            # It has given its boot slot away; another start is another decision.
            self.ledger.fault(held, "went off while it waited for the other boards", now)
        elif not (held.waits_for_room or (held.ready and picture.ready)):
            self._waking(held, picture, now)

    def _expired(self, held: Held, picture: BoardPicture, now: Moment) -> None:
        if held.job.state is JobState.RUNNING and picture.work == held.job.id:
            self.ledger.overran(held, now)
        else:
            self.ledger.fault(held, "its lease ran out and the board was not heard of", now)

    def _missing_too_long(self, held: Held, now: Moment, grace_s: float) -> bool:
        if held.missing_since is None:
            held.missing_since = now.mono
        return now.mono - held.missing_since >= grace_s

    def _waking(self, held: Held, picture: BoardPicture, now: Moment) -> None:
        if held.gate is not None:
            self.gate.look(held, held.gate, picture, now)
            return
        if held.job.spec.boot is not None:
            self.boots.look(held, picture, now)
            return
        policy = self.ledger.policy
        if picture.ready:
            self.gate.offer(held, picture, now)
            return
        if now.mono >= held.wake_until:
            seen = f"it is {picture.phase.value}" if picture.phase is not None else "its agent is away"
            self.ledger.fault(held, f"did not come up in {policy.wake_timeout_s:g} s: {seen}", now)
            return
        if not picture.agent_online:
            if self._missing_too_long(held, now, policy.lost_grace_s):
                self.ledger.fault(held, "its agent went away while it came up", now)
            return
        held.missing_since = None
        if not picture.asleep:
            return
        if not held.commanded:
            self.ledger.fault(held, "went off again while it came up", now)
        elif now.mono >= held.deadline:
            # The command may have been lost with its agent. The same id: an agent that has it does it once.
            held.deadline = now.mono + policy.power_timeout_s
            expires = now.after(policy.power_timeout_s)
            self.ledger.out.append(
                SendPower(held.board, PowerAction.ON, held.wake_id, Purpose.WAKE, held.token, expires)
            )

    def _offered(self, held: Held, picture: BoardPicture, now: Moment) -> None:
        policy = self.ledger.policy
        if picture.work == held.job.id:
            self.ledger.accept(held, picture.boot_id, now)
        elif not picture.ready:
            if self._missing_too_long(held, now, policy.lost_grace_s):
                self.ledger.fault(held, "went away before it took the job", now)
        elif now.mono >= held.deadline:
            held.missing_since = None
            if held.offers >= policy.max_offers:
                self.ledger.fault(held, f"did not answer {held.offers} offers", now)
            else:
                self.ledger.offer(held, now)

    def _running(self, held: Held, picture: BoardPicture, now: Moment) -> None:
        policy = self.ledger.policy
        if picture.online and held.boot_id is not None and picture.boot_id != held.boot_id:
            self.ledger.fault(held, "the board restarted in the middle of the job", now)
            return
        if picture.work == held.job.id:
            held.missing_since = None
            held.boot_id = held.boot_id or picture.boot_id
            return
        grace_s = policy.absent_grace_s if picture.online else policy.lost_grace_s
        if self._missing_too_long(held, now, grace_s):
            why = "the board no longer has the job" if picture.online else "the board went away"
            self.ledger.fault(held, why, now)
