"""The boot loader's desk: power and console together, what stands against it, and boards that it boots by itself."""

import asyncio
import contextlib
import time

import pytest

from agent.bootloader_catching import BootloaderCalls
from agent.bootloader_desk import BootloaderDesk
from agent.bootloader_settings import BootloaderTable
from agent.console.desk import ConsoleCalls, ConsoleDesk
from agent.console.settings import ConsolesTable, ConsoleTable
from agent.console.writer_place import Binding, Writer
from agent.requests import RequestError
from firmware_tools.bootloader.netboot import NetbootOrder
from tests.agent.console.boards import PtyBoard, until
from tests.firmware_tools.bootloader_double import FakeUboot
from wire.payloads import ErrorInfo, PowerResult
from wire.phases import ErrorKind, Power, PowerAction

PATIENCE_S = 60.0


class Board:
    """A fake U-Boot on a pty, in real time, with a power switch."""

    def __init__(self, **fake):
        self.pty = PtyBoard()
        self.fake = FakeUboot(**({"banner_s": 0.05, "delay_s": 0.3} | fake))
        self.power = Power.OFF
        self.typed = b""
        self.task = asyncio.create_task(self.live())

    async def live(self):
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            keys = self.pty.heard_now()
            self.typed += keys
            if self.power is Power.ON:
                self.fake.typed(keys, now)
                await self.pty.says(self.fake.due(now))

    def switch(self, power):
        if power is Power.ON and self.power is not Power.ON:
            self.fake.power_on(time.monotonic())
        self.power = power


class Bench:
    """One board `pi` with all that its desk asks of an agent."""

    def __init__(self, board, table, consoles, **order):
        self.board, self.consoles = board, consoles
        self.told, self.own, self.switched, self.stages = [], [], [], []
        self.by_dialogue, self.refuses = False, None
        self.gate = asyncio.Event()
        self.gate.set()
        self.desk = BootloaderDesk({"pi": table}, BootloaderCalls(
            console=consoles.consoles.get,
            power=lambda _: board.power,
            switch=self.switch,
            order=lambda _: NetbootOrder(address="10.0.0.5", server="10.0.0.1", within_s=20.0, **order),
            hold=lambda _, for_s: self.told.append(("hold", for_s)),
            release=lambda _: self.told.append(("release",)),
            by_dialogue=lambda _: self.by_dialogue,
            on_own=lambda _, stage, why: self.own.append((stage, why)),
        ))  # fmt: skip

    async def switch(self, _board, action, token):
        self.switched.append((action, token))
        if self.refuses is not None:
            return PowerResult(ok=False, power=self.board.power, action=action, error=self.refuses, took_ms=1)
        await self.power(action)
        return PowerResult(ok=True, power=self.board.power, action=action, took_ms=1)

    async def power(self, action):
        self.desk.power_begins("pi", cycles=action is PowerAction.CYCLE)
        if action is not PowerAction.ON:
            await asyncio.sleep(0.05)
            self.read(Power.OFF)
        await self.gate.wait()
        if action is not PowerAction.OFF:
            await asyncio.sleep(0.05)
            self.board.switch(Power.ON)
            await asyncio.sleep(0.05)
            self.read(Power.ON)

    def read(self, power):
        """What was read back."""
        if power is Power.OFF:
            self.board.switch(power)
        self.consoles.power("pi", power)
        self.desk.power("pi", on=power is Power.ON)

    async def ask(self, verb, **data):
        async with asyncio.timeout(PATIENCE_S):
            return await getattr(self.desk, verb)("pi", data, lambda *words, **_: self.stages.append(words[0]))

    async def refused(self, verb, **data):
        with pytest.raises(RequestError) as told:
            await self.ask(verb, **data)
        return told.value.info


@pytest.fixture
async def bench(tmp_path):
    """Makes a bench: `await make(fake={…}, order={…}, catch_tries=1)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(fake=None, order=None, leases=None, **table):
            board = Board(**(fake or {}))
            stack.callback(board.pty.close)
            stack.callback(board.task.cancel)
            calls = ConsoleCalls(lambda _: None, lambda *_: None, lambda _: None, (leases or {}).get)
            tables = {"pi": ConsoleTable(device=board.pty.path, writers="lease" if leases else "anyone")}
            consoles = ConsoleDesk(tables, ConsolesTable(), tmp_path, calls)
            stack.push_async_callback(consoles.stop)
            await consoles.start()
            await until("the console is open", lambda: consoles.consoles["pi"].port.state.is_open, PATIENCE_S)
            made = Bench(board, BootloaderTable(**({"catch_s": 10.0} | table)), consoles, **(order or {}))
            stack.push_async_callback(made.desk.stop)
            return made

        yield make


async def test_a_board_that_is_off_is_switched_on_and_caught(bench):
    made = await bench()
    answer = await made.ask("catch", token=None)
    assert answer | {"took_ms": 0} == {
        "board": "pi", "kind": "u-boot", "version": made.board.fake.version, "prompt": "=> ", "took_ms": 0,
    }  # fmt: skip
    assert made.switched == [(PowerAction.ON, None)]
    assert made.told[-1] == ("hold", 3600.0)
    assert made.stages == ["power", "catch"]
    console = made.consoles.consoles["pi"]
    assert console.place.holder is None
    assert console.readers == 0


async def test_a_board_that_runs_is_cycled_with_the_leases_token(bench):
    made = await bench(leases={"pi": Binding("alice", 7)})
    made.board.switch(Power.ON)
    await until("its system runs", lambda: made.board.fake._state == "system", PATIENCE_S)
    made.board.typed = b""
    answer = await made.ask("catch", token=7)
    assert answer["prompt"] == "=> "
    assert made.switched == [(PowerAction.CYCLE, 7)]
    assert made.board.fake.boots == 2


async def test_commands_and_variables_at_the_prompt(bench):
    made = await bench()
    await made.ask("catch")
    made.stages.clear()
    answer = await made.ask("run", commands=["echo a; echo b", "false", "echo never"])
    assert answer["ok"] is False
    assert [(r["command"], r["ended"], r["ok"], r["status"], r["output"]) for r in answer["results"]] == [
        ("echo a; echo b", "done", True, 0, "a\nb"),
        ("false", "done", False, 1, ""),
    ]
    assert len((await made.ask("run", commands=["false", "echo x"], go_on=True))["results"]) == 2
    answer = await made.ask("env", set={"foo": "bar baz", "bootcmd": None}, get=["foo", "bootcmd"])
    assert (answer["environment"], answer["saved"]) == ({"foo": "bar baz", "bootcmd": None}, False)
    assert made.board.fake.saved is None
    await made.ask("env", set={"keep": "1"}, save=True)
    assert made.board.fake.saved["keep"] == "1"
    everything = (await made.ask("env"))["environment"]
    assert everything == made.board.fake.env


async def test_a_boot_from_the_net_ends_with_the_kernels_word(bench):
    made = await bench()
    answer = await made.ask("boot")
    assert answer["kernel"] == "Starting kernel ..."
    assert made.told[-1] == ("release",)
    assert made.board.fake.env["serverip"] == "10.0.0.1"
    assert made.board.fake.saved is None


async def test_a_boot_that_fails_leaves_it_at_its_prompt_with_the_lines(bench):
    made = await bench(fake={"source": "back"})
    info = await made.refused("boot")
    assert info.kind is ErrorKind.REFUSED
    assert "Bad Linux ARM64 Image magic!" in info.message
    assert "it stands at its prompt" in info.message
    assert made.told[-1][0] == "hold"
    assert (await made.ask("run", commands=["echo yes"]))["ok"] is True


async def test_a_boot_that_resets_the_board_is_caught_again(bench):
    made = await bench(fake={"source": "reset"})
    info = await made.refused("boot")
    assert "began anew" in info.message
    assert "it was caught again" in info.message
    assert made.board.fake.boots == 2
    assert (await made.ask("run", commands=["echo yes"]))["ok"] is True


async def test_where_a_system_runs_nothing_is_typed(bench):
    made = await bench(fake={"stop": b"never"})
    await made.power(PowerAction.ON)
    console = made.consoles.consoles["pi"]
    await until("the kernel is seen", lambda: console.look() or console.story.seen.keys() & {"kernel"}, PATIENCE_S)
    info = await made.refused("run", commands=["reset"])
    assert info.kind is ErrorKind.REFUSED
    assert "a system runs on it" in info.message
    assert "catch it first" in info.message
    assert made.board.typed == b""


async def test_without_a_boot_loader_there_it_is_said_soon(bench, monkeypatch):
    monkeypatch.setattr(
        "firmware_tools.bootloader.catch.LATE_S", {"draining": 0.1, "clearing": 0.1, "probing": 0.1, "settling": 0.1}
    )
    made = await bench()
    info = await made.refused("env")
    assert "its power is off" in info.message
    made.board.fake.banner_s = 20.0
    await made.power(PowerAction.ON)
    info = await made.refused("env")
    assert "no boot loader answers" in info.message


async def test_a_board_that_gets_away_is_tried_again_and_then_told(bench):
    made = await bench(fake={"stop": b"never", "delay_s": 0.05}, catch_tries=2, catch_s=5.0)
    info = await made.refused("catch")
    assert "not caught in 2 tries" in info.message
    assert "Starting kernel" in info.message
    assert [action for action, _ in made.switched] == [PowerAction.ON, PowerAction.CYCLE]
    assert made.stages == ["power", "catch", "missed"] * 2
    assert made.told[-1] == ("release",)


async def test_power_that_is_refused_is_told_in_its_own_words(bench):
    made = await bench()
    made.refuses = ErrorInfo(kind=ErrorKind.UNREACHABLE, message="rack: no answer", key=None)
    info = await made.refused("catch")
    assert (info.kind, info.message) == (ErrorKind.UNREACHABLE, "rack: no answer")


async def test_somebody_who_types_is_not_disturbed_unless_so_asked(bench):
    made = await bench()
    console = made.consoles.consoles["pi"]
    await made.ask("catch")
    person = Writer("bob")
    assert console.type(person, b" ") is None
    info = await made.refused("run", commands=["version"])
    assert info.kind is ErrorKind.BUSY
    assert "bob is typing" in info.message
    assert (await made.ask("run", commands=["version"], take=True))["ok"] is True


async def test_one_dialogue_at_a_time_and_a_cancelled_one_lets_go(bench):
    made = await bench()
    made.gate.clear()
    made.board.switch(Power.ON)
    first = asyncio.create_task(made.ask("catch"))
    await until("its power is off", lambda: made.board.power is Power.OFF, PATIENCE_S)
    assert (await made.refused("env")).kind is ErrorKind.BUSY
    first.cancel()
    await asyncio.sleep(0.05)
    assert not first.done(), "a cycle is not cut short"
    made.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert made.board.power is Power.ON
    assert made.told[-1] == ("release",)
    assert made.consoles.consoles["pi"].place.holder is None


@pytest.mark.parametrize(
    ("verb", "data", "key"),
    [
        ("run", {}, "commands"),
        ("run", {"commands": []}, "commands"),
        ("run", {"commands": [5]}, "commands.0"),
        ("run", {"commands": ["a"], "command_s": 0}, "command_s"),
        ("env", {"set": {"a": 1}}, "set.a"),
        ("catch", {"cycle": "no"}, "cycle"),
    ],
)
async def test_a_wrong_request_names_its_key(bench, verb, data, key):
    made = await bench()
    info = await made.refused(verb, **data)
    assert (info.kind, info.key) == (ErrorKind.BAD_REQUEST, key)
    assert made.switched == []


@pytest.mark.parametrize("data", [{"commands": ["two\nlines"]}, {"commands": ["ü"]}])
async def test_what_cannot_be_typed_is_refused_before_the_board_is_touched(bench, data):
    made = await bench()
    info = await made.refused("run", cycle=True, **data)
    assert info.kind is ErrorKind.BAD_REQUEST
    assert made.switched == []


async def test_a_board_without_a_console_is_told(bench):
    made = await bench()
    with pytest.raises(RequestError, match="has no console"):
        await made.desk.catch("other", {}, lambda *_, **__: None)


# --- by itself ---------------------------------------------------------------------------------------------------


async def test_each_power_on_is_booted_by_dialogue_once(bench):
    made = await bench()
    made.by_dialogue = True
    await made.power(PowerAction.ON)
    await until("it has booted", lambda: made.own[-1:] == [("done", "Starting kernel ...")], PATIENCE_S)
    assert made.own == [("begun", ""), ("done", "Starting kernel ...")]
    made.read(Power.ON)  # read back later than the kernel's first word
    await asyncio.sleep(0.1)
    assert len(made.own) == 2
    await made.power(PowerAction.CYCLE)
    await until("it has booted again", lambda: len(made.own) == 4, PATIENCE_S)
    assert made.own[2:] == [("begun", ""), ("done", "Starting kernel ...")]


async def test_power_that_was_unknown_for_a_while_has_not_come(bench):
    """Its system runs: no key is for that."""
    made = await bench()
    made.by_dialogue = True
    made.board.switch(Power.ON)
    made.desk.found("pi", on=True)
    await until("its system runs", lambda: made.board.fake._state == "system", PATIENCE_S)
    made.read(Power.ON)
    await asyncio.sleep(0.2)
    assert (made.own, made.board.typed) == ([], b"")


async def test_power_that_was_switched_by_hand_has_come(bench):
    made = await bench()
    made.by_dialogue = True
    made.desk.found("pi", on=False)
    made.board.fake.banner_s = 0.5
    made.board.switch(Power.ON)
    made.read(Power.ON)
    await until("it has booted", lambda: made.own[-1:] == [("done", "Starting kernel ...")], PATIENCE_S)


async def test_one_that_fails_is_told_with_its_reason(bench):
    made = await bench(fake={"network": "dead"})
    made.by_dialogue = True
    await made.power(PowerAction.ON)
    await until("it has failed", lambda: made.own[-1][0] == "failed", PATIENCE_S)
    assert "No ethernet found" in made.own[-1][1]


async def test_a_restart_is_booted_by_dialogue_at_the_sight_of_its_countdown(bench):
    made = await bench()
    made.by_dialogue = True
    await made.power(PowerAction.ON)
    await until("it has booted", lambda: len(made.own) == 2, PATIENCE_S)
    made.board.typed = b""
    made.board.fake.delay_s = 2.0
    made.board.fake.power_on(time.monotonic())
    made.desk.restarted("pi")
    await until("it has booted again", lambda: len(made.own) == 4, PATIENCE_S)
    assert made.own[-1][0] == "done"


async def test_an_order_ends_what_it_does_by_itself(bench):
    made = await bench(fake={"banner_s": 3.0})
    made.by_dialogue = True
    await made.power(PowerAction.ON)
    await until("it has begun", lambda: made.own, PATIENCE_S)
    answer = await made.ask("catch")
    assert answer["prompt"] == "=> "
    assert made.own == [("begun", "")]
    made.read(Power.OFF)
    assert made.desk._catching["pi"].by_itself._begun is False


async def test_a_board_that_is_not_to_be_booted_so_is_left_alone(bench):
    made = await bench()
    await made.power(PowerAction.ON)
    await until("its system runs", lambda: made.board.fake._state == "system", PATIENCE_S)
    assert made.board.typed == b""
