"""Relay boards on serial ports: codecs alone, and the driver on pseudo-terminals that behave as the boards."""

import asyncio
import subprocess
import sys
import time

import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.power.controller_queue import ControllerQueue
from agent.power.driver_factory import DriverFactory
from agent.power.drivers.serial_relay_protocols import PROTOCOLS, GarbledError, lcus_frame
from agent.power.errors import ConfigurationError, UnreachableError
from agent.power.kinds.serial_relay import MAX_OUTLETS, SerialRelaySettings
from virtual_lab.serial_relay import FIRMWARE, VirtualRelayBoard
from wire.phases import Power

BOARDS = {"numato": "numato", "lcus": "lcus", "lcus-lines": "lcus", "lcus-feedback": "lcus-feedback",
          "devantech": "devantech", "conrad": "conrad"}  # fmt: skip
"""Virtual board that answers -> protocol of its settings."""
HOLD = "import serial, sys; p = serial.Serial(sys.argv[1], exclusive=True); print('held', flush=True); sys.stdin.read()"
PATIENT_S = 10.0
"""For an answer that will come; on a loaded machine it may take seconds."""
SOON_S = 0.5
"""For an answer that will not come."""
POWER = {True: Power.ON, False: Power.OFF}


@pytest.fixture
async def connect():
    queues, factory = [], DriverFactory()

    def make(board, **changes):
        values = {"driver": "serial_relay", "protocol": BOARDS.get(board.protocol, "lcus"), "device": board.device,
                  "outlets": board.outlets, "reply_timeout_s": PATIENT_S} | changes  # fmt: skip
        queue = ControllerQueue("relays", factory("relays", SerialRelaySettings(**values)))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close()


# --- codecs -----------------------------------------------------------------------------------------------------


def feed(reader, pieces):
    """The answer, and how many bytes it took; None while more has to come."""
    for count, piece in enumerate(pieces, 1):
        answer = reader.feed(piece)
        if answer is not None:
            return answer, count
    return None, len(pieces)


def virtual_answer(name, outlets, on, exchange, greeted):
    board = VirtualRelayBoard(name, outlets)
    board.on = list(on)
    for greeting in greeted:
        board._firmware.receive(board, greeting.send)
    return board._firmware.receive(board, exchange.send)


@pytest.mark.parametrize("name", BOARDS)
@given(data=st.data())
def test_an_answer_is_understood_whole_and_in_any_pieces(name, data):
    outlets = data.draw(st.sampled_from([1, 2, 4, 8]))
    on = data.draw(st.lists(st.booleans(), min_size=outlets, max_size=outlets))
    relay = data.draw(st.integers(1, outlets))
    protocol = PROTOCOLS[BOARDS[name]](outlets)
    exchange = data.draw(st.sampled_from([ask for ask in (protocol.asks_all and protocol.asks_all(),) if ask]
                                         + [protocol.ask(relay)]))  # fmt: skip
    answer = virtual_answer(name, outlets, on, exchange, protocol.greeting[:1])
    cut = data.draw(st.integers(0, len(answer)))
    reader = exchange.reader()
    early = reader.feed(answer[:cut])
    if early is None:
        early = reader.feed(answer[cut:])
    assert early is not None
    assert early[relay] is on[relay - 1]
    byte_by_byte, _ = feed(exchange.reader(), [bytes([byte]) for byte in answer])
    assert byte_by_byte == early


@pytest.mark.parametrize("name", PROTOCOLS)
@given(junk=st.binary(max_size=200), relay=st.integers(1, 8))
def test_junk_never_breaks_a_reader(name, junk, relay):
    """It is garbage, or no answer yet, or, where a protocol is so thin, states; nothing else."""
    for exchange in (PROTOCOLS[name](8).ask(relay), PROTOCOLS[name](8).switch(relay, True)):
        if exchange.reader is None:
            continue
        try:
            answer = exchange.reader().feed(junk)
        except GarbledError:
            continue
        assert answer is None or all(isinstance(state, bool) for state in answer.values())


@pytest.mark.parametrize("name", ["numato", "lcus-feedback", "conrad"])
@given(junk=st.binary(max_size=40).filter(lambda junk: b">" not in junk), on=st.booleans(), relay=st.integers(1, 8))
def test_noise_before_an_answer_is_passed_over(name, junk, on, relay):
    protocol = PROTOCOLS[BOARDS[name]](8)
    exchange = protocol.ask(relay)
    states = [on if number == relay else not on for number in range(1, 9)]
    answer = virtual_answer(name, 8, states, exchange, protocol.greeting[:1])
    told = exchange.reader().feed(junk + answer)
    if name == "numato" or told != exchange.reader().feed(junk):  # noise may happen to be a frame with a right sum
        assert told[relay] is on


@pytest.mark.parametrize("name", ["numato", "lcus", "lcus-feedback", "conrad"])
def test_an_echo_of_the_question_is_no_answer(name):
    exchange = PROTOCOLS[name](4).ask(2)
    assert exchange.reader().feed(exchange.send) is None


def test_an_echoing_line_is_no_devantech():
    (greeting,) = PROTOCOLS["devantech"](8).greeting
    with pytest.raises(GarbledError, match="echoes"):
        greeting.reader().feed(greeting.send)


def test_a_late_answer_about_another_relay_is_not_taken_by_numato():
    exchange = PROTOCOLS["numato"](4).ask(2)
    told, _ = feed(exchange.reader(), [b"relay read 0\n\ron\n\r>", b"relay read 1\n\roff\n\r>"])
    assert told == {2: False}


def test_bytes_on_the_wire():
    """From the makers' documents, by hand."""
    assert PROTOCOLS["numato"](4).switch(3, True).send == b"relay on 2\r"
    assert PROTOCOLS["numato"](16).ask(11).send == b"relay read A\r"
    assert PROTOCOLS["numato"](32).switch(32, False).send == b"relay off V\r"
    assert PROTOCOLS["numato"](64).switch(32, True).send == b"relay on 31\r"
    assert PROTOCOLS["lcus"](1).switch(1, True).send == bytes.fromhex("a00101a2")
    assert PROTOCOLS["lcus"](2).switch(2, False).send == bytes.fromhex("a00200a2")
    assert PROTOCOLS["lcus-feedback"](1).switch(1, True).send == bytes.fromhex("a00103a4")
    assert PROTOCOLS["lcus-feedback"](1).switch(1, False).send == bytes.fromhex("a00102a3")
    assert PROTOCOLS["devantech"](8).switch(8, True).send == b"\x6c"
    assert PROTOCOLS["devantech"](8).switch(8, False).send == b"\x76"
    assert PROTOCOLS["devantech"](8).ask(1).send == b"\x5b"
    assert PROTOCOLS["conrad"](16).switch(10, True).send == bytes([6, 2, 2, 6])
    assert PROTOCOLS["conrad"](8).greeting[0].send == bytes([1, 1, 0, 0])
    assert lcus_frame(4, 1) == bytes.fromhex("a00401a5")


@pytest.mark.parametrize("answer", [b"01\x02\x00", b"\x00\x07\x00\x00", b"hello"])
def test_what_is_no_state_is_garbage_to_lcus(answer):
    with pytest.raises(GarbledError):
        PROTOCOLS["lcus"](4).ask(1).reader().feed(answer)


@pytest.mark.parametrize("said", ["", "o n", "0", "maybe"])
def test_what_is_no_state_is_garbage_to_numato(said):
    with pytest.raises(GarbledError):
        PROTOCOLS["numato"](4).ask(1).reader().feed(f"relay read 0\n\r{said}\n\r>".encode())


def test_endless_noise_ends():
    for name in ("numato", "lcus-feedback", "conrad", "lcus"):
        with pytest.raises(GarbledError):
            PROTOCOLS[name](4).ask(1).reader().feed(b"C" * 10_000)


def test_limits_of_the_settings_are_those_of_the_protocols():
    assert {name: make(1).max_outlets for name, make in PROTOCOLS.items()} == MAX_OUTLETS
    with pytest.raises(ValidationError, match="at most 8"):
        SerialRelaySettings(driver="serial_relay", protocol="lcus", device="/dev/x", outlets=9)


# --- the driver -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOARDS)
async def test_switch_and_read_back(connect, name):
    async with VirtualRelayBoard(name, 8) as board:
        queue = connect(board)
        for outlet in ("1", "8", "3"):
            for on in (True, False, True):
                await queue.set(outlet, on)
                assert await queue.get(outlet) is POWER[on]
                assert board.on[int(outlet) - 1] is on
        board.press(2, True)
        assert [item.power for item in await queue.describe()] == [POWER[on] for on in board.on]
        many = await queue.get_many(["2", "4", "9", "x"])
        assert (many["2"], many["4"]) == (Power.ON, Power.OFF)
        assert all(isinstance(many[wrong], ConfigurationError) for wrong in ("9", "x"))
        assert queue.driver.reads_back
        assert await queue.read("2") is None


@pytest.mark.parametrize(("name", "outlets"), [("numato", 64), ("numato", 32), ("numato", 16), ("conrad", 20)])
async def test_many_relays(connect, name, outlets):
    async with VirtualRelayBoard(name, outlets) as board:
        queue = connect(board)
        for outlet in (1, 10, 11, outlets):
            await queue.set(str(outlet), True)
            assert [index + 1 for index, on in enumerate(board.on) if on] == [outlet]
            assert await queue.get(str(outlet)) is Power.ON
            assert (await queue.get_many(["2", str(outlet)])) == {"2": Power.OFF, str(outlet): Power.ON}
            await queue.set(str(outlet), False)
        assert len(await queue.describe()) == outlets


@pytest.mark.parametrize("name", BOARDS)
async def test_answers_byte_by_byte_and_late_ones(connect, name):
    async with VirtualRelayBoard(name, 4, piecewise=True) as board:
        queue = connect(board, reply_timeout_s=SOON_S)
        await queue.set("2", True)
        assert await queue.get("2") is Power.ON
        board.delay_s = SOON_S + 0.1
        with pytest.raises(UnreachableError, match="did not answer within"):
            await queue.get("2")
        board.press(2, False)
        board.delay_s = 0.0
        assert await queue.get("2") is Power.OFF, "the late answer said on"


@pytest.mark.parametrize("name", ["numato", "lcus-feedback", "conrad"])
async def test_a_noisy_line(connect, name):
    async with VirtualRelayBoard(name, 4, noise=b"\x00\xfd\r\n") as board:
        queue = connect(board)
        for on in (True, False):
            await queue.set("1", on)
            assert await queue.get("1") is POWER[on]


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_a_conrad_card_out_of_step_is_brought_back(connect, lost):
    async with VirtualRelayBoard("conrad", 8) as board:
        board._firmware.receive(board, b"\x07" * lost)
        assert await connect(board, reply_timeout_s=SOON_S).get("1") is Power.OFF


async def test_a_mute_board_is_never_claimed(connect, until):
    async with VirtualRelayBoard("lcus-mute", 2) as board:
        queue = connect(board, reply_timeout_s=SOON_S)
        await queue.set("1", True)
        await until(lambda: board.on == [True, False])
        assert await queue.get("1") is Power.UNKNOWN
        assert not queue.driver.reads_back
        assert [item.power for item in await queue.describe()] == [Power.UNKNOWN] * 2


async def test_a_mute_board_is_not_waited_for_again_and_one_that_replaces_it_is_asked(connect, tmp_path, until):
    async with VirtualRelayBoard("lcus-mute", 2, link=tmp_path / "relays") as board:
        queue = connect(board, reply_timeout_s=SOON_S)
        await queue.get("1")
        took = []
        for _ in range(5):
            began = time.monotonic()
            await queue.set("1", True)
            took.append(time.monotonic() - began)
        assert min(took) < 0.2, "of several, as any one may be held up by the machine"
        await until(lambda: board.on[0])
        board.vanish()
        board.protocol = "lcus"
        board.come_back()
        with pytest.raises(UnreachableError, match="cannot be used"):
            await queue.set("1", True)
        assert await queue.get("1") is Power.ON
        assert queue.driver.reads_back


async def test_a_board_that_must_not_be_asked_is_not(connect, until):
    async with VirtualRelayBoard("lcus", 2) as board:
        queue = connect(board, read_back=False)
        assert await queue.get("1") is Power.UNKNOWN
        await queue.set("2", True)
        await until(lambda: board.on[1])
        assert bytes(board.received) == lcus_frame(2, 1)


async def test_another_number_of_relays_than_the_board_has_is_no_answer(connect):
    async with VirtualRelayBoard("lcus", 2) as board:
        with pytest.raises(UnreachableError, match="00 00 is no whole answer"):
            await connect(board, outlets=4, reply_timeout_s=SOON_S).get("1")


@pytest.mark.parametrize("name", BOARDS)
async def test_a_silent_board_is_unreachable_in_time_and_comes_back(connect, name):
    async with VirtualRelayBoard(name, 4) as board:
        queue = connect(board, reply_timeout_s=SOON_S)
        await queue.set("1", True)
        await queue.get("1")
        board.silent = True
        for _ in range(2):
            # The driver's own word: the queue would have named its longer call_timeout_s.
            with pytest.raises(UnreachableError, match=r"check that a .* board with 4 relays"):
                await queue.get("1")
        board.silent = False
        assert await queue.get("1") is Power.ON
        await queue.set("1", False)
        assert await queue.get("1") is Power.OFF


@pytest.mark.parametrize("name", ["numato", "lcus"])
async def test_a_tty_that_vanishes_mid_command_is_one_error_and_is_opened_again_by_its_path(connect, tmp_path, name):
    async with VirtualRelayBoard(name, 4, link=tmp_path / "by-path", delay_s=100) as board:
        queue = connect(board, reply_timeout_s=10)
        asked = asyncio.create_task(queue.get("1"))
        async with asyncio.timeout(60):
            while not board.received:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        board.vanish()
        with pytest.raises(UnreachableError, match=r"by-path cannot be used: .*plug it in"):
            await asked
        with pytest.raises(UnreachableError, match="by-path"):
            await queue.set("1", True)
        board.delay_s = 0
        board.come_back()
        await queue.set("1", True)
        assert await queue.get("1") is Power.ON


async def test_a_port_that_another_process_holds_is_named(connect, tmp_path):
    async with VirtualRelayBoard("numato", 4, link=tmp_path / "relays") as board:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, board.device],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            await asyncio.to_thread(holder.stdout.readline)
            with pytest.raises(ConfigurationError, match=r"relays is in use by another program; close"):
                await connect(board).get("1")
        finally:
            holder.communicate()
        assert await connect(board).get("1") is Power.OFF


async def test_what_is_no_serial_port(connect, tmp_path):
    board = VirtualRelayBoard("numato", 4)
    for path in (tmp_path / "nothing", "/dev/null"):
        board.device = str(path)
        with pytest.raises(UnreachableError, match=f"{path} cannot be used"):
            await connect(board).get("1")


@pytest.mark.parametrize("wrong", ["0", "5", "01", "-1", "²", "on", "", "1;2", "99999999999999999999"])
async def test_outlets_that_are_not_there(connect, wrong):
    async with VirtualRelayBoard("numato", 4) as board:
        queue = connect(board)
        for call in (queue.get(wrong), queue.set(wrong, True), queue.read(wrong)):
            with pytest.raises(ConfigurationError, match="the board has 1 to 4") as caught:
                await call
            assert caught.value.outlet == wrong
        assert not board.received, "nothing was sent for it"


async def test_garbage_is_not_taken_for_a_mute_board(connect):
    async with VirtualRelayBoard("lcus", 2, noise=b"\x55") as board:
        queue = connect(board, reply_timeout_s=SOON_S)
        with pytest.raises(UnreachableError, match="55"):
            await queue.get("1")
        assert queue.driver.reads_back
        board.noise = b""
        assert await queue.get("1") is Power.OFF


def test_every_virtual_board_is_tried():
    assert set(FIRMWARE) == set(BOARDS) | {"lcus-mute"}
    assert set(PROTOCOLS) == set(BOARDS.values())


async def test_exclusive_against_a_terminal_that_opens_later(connect):
    async with VirtualRelayBoard("devantech", 8) as board:
        await connect(board).get("1")
        with pytest.raises(serial.SerialException, match=r"lock|busy"):
            serial.Serial(board.device, exclusive=True)
