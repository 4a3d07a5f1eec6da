"""Asking a board's agent before the board is offered a job, where programs of the admin's run there at `before-job`.

The lease is taken and the board is up when the agent is asked (`prepare`). A yes is followed by the offer; a no, or no
answer in time, is an infrastructure fault: the job is tried elsewhere, and the board rests, because a gate that is
closed for one job is mostly closed for the next one too.
"""

from dataclasses import dataclass, field

from broker.farm_view import BoardPicture, FarmView
from broker.happenings import AgentAnswered, Moment, SendRequest
from broker.jobs.life import JobEvent
from broker.ledger import LEASE_MARGIN_S, GateWait, Held, Ledger
from wire.payloads import Response
from wire.phases import JobState

HOOK_POINT = "before-job"
VERB = "prepare"
MOST_LETTERS = 1000
# A stranger who invents agents does not fill the memory.
MAX_AGENTS = 10_000


@dataclass(slots=True)
class BeforeJob:
    """Changes leases through the ledger, as `LeaseWatch` does."""

    ledger: Ledger
    farm: FarmView
    asking: set[str] = field(default_factory=set)
    """Agents that want to be asked."""
    _count: int = 0

    def agent_told(self, agent: str, *, asks: bool) -> None:
        """An agent says whether it wants to be asked."""
        if not asks:
            self.asking.discard(agent)
        elif len(self.asking) < MAX_AGENTS:
            self.asking.add(agent)

    def offer(self, held: Held, picture: BoardPicture, now: Moment) -> None:
        """Offer the job, after the agent was asked where it wants to be. The board is ready."""
        if picture.agent not in self.asking:
            self.ledger.offer(held, now)
        elif held.gate is None:
            job = held.job
            if job.state is JobState.QUEUED:
                job.step(JobEvent.WAKE)
            job.reason = f"agent {picture.agent} is asked whether {held.board} may take it"
            self.ledger.extend(held, now, self.ledger.policy.hook_timeout_s + LEASE_MARGIN_S)
            self.ledger.save(job)
            self._ask(held, picture, now)

    def _ask(self, held: Held, picture: BoardPicture, now: Moment) -> None:
        if picture.agent is None:
            return
        self._count += 1
        timeout_s = self.ledger.policy.hook_timeout_s
        # The moment is in it: after our restart an answer to our predecessor is not taken for one to us.
        name = f"job-{held.token}-{int(now.wall.timestamp() * 1000)}-{self._count}"
        deadline = held.gate.deadline if held.gate is not None else now.mono + timeout_s
        held.gate = GateWait(name, deadline)
        data: dict[str, object] = {"board": held.board, "job": held.job.id, "token": held.token}
        self.ledger.out.append(SendRequest(picture.agent, VERB, name, data, now.after(timeout_s)))
        self.ledger.tell(held, f"agent {picture.agent} was asked", now)

    def look(self, held: Held, gate: GateWait, picture: BoardPicture, now: Moment) -> None:
        """What `LeaseWatch` does for a board whose agent was asked."""
        policy = self.ledger.policy
        if gate.granted and picture.ready:
            held.gate = None
            self.ledger.offer(held, now)
        elif not picture.ready:
            # Also while the agent is away: then it is not known to be ready.
            gate.lost = gate.lost or not picture.agent_online
            if held.missing_since is None:
                held.missing_since = now.mono
            if now.mono - held.missing_since >= policy.lost_grace_s:
                self.ledger.fault(held, "went away while its agent was asked", now)
        elif now.mono >= gate.deadline:
            why = f"its agent did not say in {policy.hook_timeout_s:g} s whether it may take the job"
            self.ledger.fault(held, why, now)
        else:
            held.missing_since = None
            if gate.lost:
                # An agent that came back no longer knows that it was asked.
                self._ask(held, picture, now)

    def answered(self, answer: AgentAnswered, now: Moment) -> None:
        """An agent's answer, perhaps to somebody else."""
        name = answer.response.transaction
        if answer.verb != VERB or name is None:
            return
        for held in self.ledger.held.values():
            gate = held.gate
            if gate is not None and gate.id == name and self.farm.board(held.board).agent == answer.agent:
                self._decide(held, gate, answer.response, now)
                return

    def _decide(self, held: Held, gate: GateWait, response: Response, now: Moment) -> None:
        if response.ok:
            gate.granted = True
            self.ledger.tell(held, "its agent lets it take the job", now)
            self.look(held, gate, self.farm.board(held.board), now)
            return
        told = response.error.message[:MOST_LETTERS] if response.error is not None else "no reason given"
        self.ledger.fault(held, f"its agent does not let it take the job: {told}", now)
