"""Jobs with and without their own boot in any order, with lost answers, faults and brokers that restart: a job
gets the boot that it asked for, and every job ends."""

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from broker import happenings as h
from broker.ledger import Policy
from tests.broker.conftest import OFF_PHASES, World
from wire.payloads import ErrorInfo, PowerResult, Response, WorkAccept, WorkOutcome
from wire.phases import ErrorKind, Outcome, Phase, Power, PowerAction

NAMES = ("b1", "b2")
POLICY = Policy(idle_s=100, min_on_s=0, booting_cap=2, bench_s=20, wake_timeout_s=120)


class AgentOnPaper:
    """What `agent.boot_choice` decides: the choice holds until power is lost after the board was up with it."""

    def __init__(self):
        self.chosen, self.was_up = {}, set()

    def choose(self, data):
        self.was_up.discard(data["board"])
        if "profile" in data:
            self.chosen[data["board"]] = data["profile"]
        else:
            self.chosen.pop(data["board"], None)

    def power_lost(self, board):
        if board in self.was_up:
            self.chosen.pop(board, None)
            self.was_up.discard(board)


class Farm(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.w = World(POLICY, NAMES)
        self.agent = AgentOnPaper()
        self.running = {}  # board -> the boot it is in, None for its standing one
        self.asked = []
        self.own = {}
        obey = self.w.obey

        def also(action):
            obey(action)
            if isinstance(action, h.SendRequest):
                self.asked.append(action)
            if isinstance(action, h.SendOffer):
                assert self.running[action.board] == self.own[action.job], f"{action.job} in a boot that is not its own"

        self.w.obey = also

    def teardown(self):
        try:
            self.drain()
        finally:
            self.w.db.close()

    # --- people

    @rule(own=st.booleans())
    def submit(self, own):
        number = self.w.scheduler.ledger.next_number
        self.own[f"job-{number}"] = "rescue" if own else None
        self.w.submit("name: t\nsteps: [a]\ntimeout_s: 100\nattempts: 3\n" + ("boot: rescue\n" if own else ""))

    @precondition(lambda self: self.own)
    @rule(data=st.data())
    def cancel(self, data):
        self.w.cancel(data.draw(st.sampled_from(sorted(self.own))))

    @rule(seconds=st.sampled_from([1, 6, 16, 61, 130]))
    def wait(self, seconds):
        self.w.wait(seconds)

    @rule()
    def restart(self):
        self.w.mono += 0.5
        self.w.start()

    # --- agent and boards

    @precondition(lambda self: self.asked)
    @rule(how=st.sampled_from(["ok", "ok", "ok", "lost", "done but lost", "unreachable", "not here"]))
    def answer(self, how):
        request = self.asked.pop(0)
        if how == "lost":
            return
        error = {"unreachable": ErrorKind.UNREACHABLE, "not here": ErrorKind.CONFIGURATION}.get(how)
        if request.verb == "boot" and error is None:
            self.agent.choose(request.data)
        if how != "done but lost":
            info = ErrorInfo(kind=error, message="no") if error is not None else None
            response = Response(transaction=request.transaction, ok=error is None, error=info)
            self.w.tell(h.AgentAnswered("lab1", request.verb, response))

    @precondition(lambda self: self.w.powers)
    @rule(ok=st.sampled_from([True, True, True, False]))
    def switch(self, ok):
        command = self.w.powers.pop(0)
        board = self.w.boards[command.board]
        if command.token is not None and self.w.leases.get(command.board) != command.token:
            ok = False  # the agent refuses it
        if not ok and command.power is not PowerAction.OFF:
            self.w.wakes.pop(command.board, None)
        if ok and command.power is not PowerAction.ON and board.phase not in OFF_PHASES:
            self.agent.power_lost(command.board)
            self.w.wakes.pop(command.board, None)
            self.w.down(command.board)
        if ok and command.power is not PowerAction.OFF and board.phase in OFF_PHASES:
            self.w.phase(command.board, Phase.STARTING)
        self.w.tell(h.PowerReported(command.board, PowerResult(id=command.id, ok=ok, power=Power.UNKNOWN, took_ms=1)))

    @rule(name=st.sampled_from(NAMES))
    def come_up(self, name):
        if self.w.boards[name].phase is Phase.STARTING:
            self.running[name] = self.agent.chosen.get(name)
            if name in self.agent.chosen:
                self.agent.was_up.add(name)
            self.w.up(name)

    @rule(name=st.sampled_from(NAMES), outcome=st.sampled_from([Outcome.PASSED, Outcome.FAILED, Outcome.ERROR]))
    def work(self, name, outcome):
        offer, board = self.w.offers.pop(name, None), self.w.boards[name]
        if offer is None or not board.online or self.w.leases.get(name) != offer.token:
            return
        board.work = (offer.job, offer.token)
        self.w.report(name, WorkAccept(job=offer.job, token=offer.token, boot_id=board.boot_id))
        self.w.tell_self(board)
        self.w.report(name, WorkOutcome(job=offer.job, token=offer.token, outcome=outcome))
        board.work = None
        self.w.tell_self(board)
        self.w.ask(name)

    def drain(self):
        """Nothing fails any more: every job has its end, and every board its standing profile."""
        for _ in range(150):
            while self.asked:
                self.answer("ok")
            while self.w.powers:
                self.switch(ok=True)
            for name in NAMES:
                self.come_up(name)
                self.work(name, Outcome.PASSED)
            self.w.wait(7)
            if len(self.w.ends) == len(self.own) and not self.w.scheduler.ledger.other_boots and not self.asked:
                break
        assert len(self.w.ends) == len(self.own), f"without an end: {self.own.keys() - self.w.ends.keys()}"
        assert not self.w.scheduler.ledger.other_boots
        assert not self.agent.chosen
        assert self.w.db.execute("SELECT count(*) FROM other_boots").fetchone()[0] == 0


TestFarm = Farm.TestCase
TestFarm.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
