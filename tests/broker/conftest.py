"""A farm on paper: boards and agents as the scheduler sees them, and a SQLite file in memory behind it."""

import itertools
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from broker import happenings as h
from broker.jobs.spec import parse_job
from broker.jobs.store import _recover, _save
from broker.ledger import Policy
from broker.scheduler import Scheduler
from broker.store.schema import MIGRATIONS
from wire.payloads import (
    AgentState,
    BoardInfo,
    BoardSelf,
    BoardState,
    PowerResult,
    WorkAccept,
    WorkAsk,
    WorkLog,
    WorkOutcome,
)
from wire.phases import LeaseKind, Outcome, Phase, Power, PowerAction, Presence

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
OFF_PHASES = {Phase.OFF, Phase.SLEEPING}


class PaperBoard:
    def __init__(self, name, agent):
        self.name, self.agent = name, agent
        self.phase, self.reason = Phase.SLEEPING, None
        self.online, self.boot, self.work = False, 0, None
        self.seq = 0

    @property
    def boot_id(self):
        return f"{self.name}-boot-{self.boot}"


class World:
    """Actions are checked as they come: whatever the test does, these rules hold."""

    def __init__(self, policy=None, boards=("b1", "b2", "b3"), labels=None):
        self.policy = policy or Policy()
        self.mono = 1000.0
        self.more = False  # as if every message came together with the next one
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.row_factory = sqlite3.Row
        for script in MIGRATIONS:
            self.db.executescript(script)
        self.session = {"lab1": 1}
        self.present = {"lab1": Presence.ONLINE}
        self.boards = {name: PaperBoard(name, "lab1") for name in boards}
        self.labels = labels or {}
        self.leases = {}  # board -> token, as an MQTT server would keep them
        self.top_token = {}
        self.offers = {}  # board -> last SendOffer
        self.powers = []  # SendPower not yet obeyed
        self.stops, self.acks, self.replies, self.notes = [], [], [], []
        self.ends = {}  # job -> state
        self.summaries = {}
        self.wakes = {}  # board -> until when a wake of the broker may take effect
        self.tags = itertools.count(1)
        self.start()

    # --- the broker's life

    def start(self):
        found = _recover(self.db)
        self.scheduler = Scheduler(self.policy, found.session)
        self.scheduler.restore(
            found.jobs,
            found.tokens,
            found.outcomes,
            found.holders,
            found.next_number,
            self.now(),
            other_boots=found.other_boots,
            boots=found.boots,
        )
        self.scheduler.people.restore(found.leases, self.now())
        self.scheduler.orders.restore(found.health)
        self.scheduler.groups.restore(found.ended_members, found.meetings, self.now())
        # Commands of leases that ended just before a kill -9 are forgotten: a boot too many, for a minute at most.
        self.wakes = {board: until for board, until in self.wakes.items() if board in self.leases}
        self.settle()

    def settle(self):
        self.tell_all()
        for board, token in list(self.leases.items()):
            self.tell(h.LeaseSeen(board, token, empty=False))
        self.tell(h.Settled())

    def now(self):
        return h.Moment(self.mono, EPOCH + timedelta(seconds=self.mono))

    def tell(self, happening):
        more = self.more and not isinstance(happening, h.Tick | h.Settled)
        actions = self.scheduler.handle(happening, self.now(), more=more)
        for action in actions:  # commit first
            if isinstance(action, h.Saved):
                _save(self.db, action)
        for action in actions:
            self.obey(action)
        return actions

    def wait(self, seconds):
        self.mono += seconds
        return self.tell(h.Tick())

    # --- the rules

    def obey(self, action):
        match action:
            case h.PutLease(board, token, _, expires):
                held = self.leases.get(board)
                handed_over = action.kind is LeaseKind.PERSON and held is not None and held < token
                assert held is None or held == token or handed_over, f"{board} leased twice: {held} and {token}"
                if held is None or handed_over:
                    assert token > self.top_token.get(board, 0), f"token {token} of {board} does not rise"
                    self.top_token[board] = token
                assert expires > self.now().wall
                self.leases[board] = token
            case h.ClearLease(board):
                self.leases.pop(board, None)
            case h.SendOffer(board, job, token):
                assert self.leases.get(board) == token, "offered without a lease"
                assert job not in self.ends
                self.offers[board] = action
            case h.SendPower(board, power):
                self.check_power(action, board, power)
                self.powers.append(action)
            case h.SendStop():
                self.stops.append(action)
            case h.SendAck():
                self.acks.append(action)
            case h.Reply():
                self.replies.append(action)
            case h.Note():
                self.notes.append(action)
            case h.Announce(summary):
                self.check_end(summary)

    def check_power(self, action, board, power):
        if power is PowerAction.OFF:
            assert board not in self.leases, f"{board} put to sleep while leased"
            assert self.boards[board].work is None or self.scheduler.farm.board(board).work is None
            return
        self.wakes = {b: t for b, t in self.wakes.items() if t > self.mono and self.boards[b].phase in OFF_PHASES}
        self.wakes[board] = self.mono + self.policy.power_timeout_s
        known = {b for b in self.boards if self.scheduler.farm.board(b).coming_up}
        assert len(known | set(self.wakes)) <= self.policy.booting_cap, "too many boards boot at once"

    def check_end(self, summary):
        assert summary.job not in self.ends, f"{summary.job} changed after its end"
        self.summaries[summary.job] = summary
        if summary.state.ended:
            self.ends[summary.job] = summary.state

    # --- what agents and boards say

    def tell_all(self):
        for agent in self.session:
            self.tell_agent(agent)
        for board in self.boards.values():
            self.tell(h.InfoSeen(board.name, BoardInfo(arch="arm64", labels=self.labels.get(board.name, {}))))
            self.tell_state(board)
            self.tell_self(board)

    def tell_agent(self, agent="lab1"):
        said = AgentState(state=self.present[agent], session=self.session[agent], since=EPOCH)
        self.tell(h.AgentSeen(agent, said))

    def tell_state(self, board):
        power = Power.OFF if board.phase in OFF_PHASES else Power.ON
        said = BoardState(
            power=power,
            phase=board.phase,
            reason=board.reason,
            since=EPOCH,
            agent=board.agent,
            session=self.session[board.agent],
            seq=board.seq,
        )
        return self.tell(h.StateSeen(board.name, said))

    def tell_self(self, board):
        state = Presence.ONLINE if board.online else Presence.OFFLINE
        said = BoardSelf(state=state, boot_id=board.boot_id, work=board.work[0] if board.work else None)
        return self.tell(h.SelfSeen(board.name, said))

    def phase(self, name, phase, reason=None):
        board = self.boards[name]
        board.phase, board.reason = phase, reason
        board.seq += 1
        self.tell_state(board)

    def up(self, name):
        """The board has booted and registered."""
        board = self.boards[name]
        board.boot += 1
        board.online, board.work = True, None
        self.tell_self(board)
        self.phase(name, Phase.READY)
        self.ask(name)

    def down(self, name, phase=Phase.SLEEPING):
        board = self.boards[name]
        board.online, board.work = False, None
        self.tell_self(board)
        self.phase(name, phase)

    def obey_power(self, action, ok=True):
        self.powers.remove(action)
        board = self.boards[action.board]
        if not ok and action.power is PowerAction.ON:
            self.wakes.pop(action.board, None)
        if ok and action.power is PowerAction.OFF:
            if not any(one.board == action.board and one.power is PowerAction.ON for one in self.powers):
                self.wakes.pop(action.board, None)  # what was to switch it on has had its effect
            self.down(action.board)
        elif ok and board.phase in OFF_PHASES:
            self.phase(action.board, Phase.STARTING)
        self.tell(h.PowerReported(action.board, PowerResult(id=action.id, ok=ok, power=Power.UNKNOWN, took_ms=1)))

    # --- work

    def submit(self, yaml="name: t\nsteps: [make]\n"):
        tag = f"t{next(self.tags)}"
        self.tell(h.Submit(tag, parse_job(yaml)))
        reply = next(r for r in self.replies if r.tag == tag)
        return reply.data.get("job")

    def cancel(self, job):
        self.tell(h.Cancel(f"t{next(self.tags)}", job))

    def ask(self, name):
        self.report(name, WorkAsk(boot_id=self.boards[name].boot_id))

    def report(self, name, report):
        return self.tell(h.Reported(name, report))

    def accept(self, name):
        offer, board = self.offers[name], self.boards[name]
        board.work = (offer.job, offer.token)
        self.report(name, WorkAccept(job=offer.job, token=offer.token, boot_id=board.boot_id))
        self.tell_self(board)
        self.phase(name, Phase.BUSY)
        return offer

    def log(self, name, seq=0, text="hello\n"):
        job, token = self.boards[name].work
        self.report(name, WorkLog(job=job, token=token, seq=seq, text=text))

    def finish(self, name, outcome=Outcome.PASSED):
        board = self.boards[name]
        job, token = board.work
        self.report(name, WorkOutcome(job=job, token=token, outcome=outcome))
        board.work = None
        self.tell_self(board)
        self.phase(name, Phase.READY)
        self.ask(name)

    def state(self, job):
        return self.summaries[job].state


@pytest.fixture
def make_world():
    made = []

    def make(*args, **kwargs):
        world = World(*args, **kwargs)
        made.append(world)
        return world

    yield make
    for world in made:
        world.db.close()


@pytest.fixture
def world(make_world):
    return make_world()
