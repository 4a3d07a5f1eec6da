"""Both forms of the client, as processes, against a real MQTT server. Every test here runs for both."""

import hashlib
import hmac
import json
import signal
import time

import pytest

from board.client import MqttConnection
from wire.payloads import registration_message


def test_registers_with_what_it_knows_and_the_right_proof(farm, start):
    start()
    request = farm.accept_registration()
    message = registration_message("b1", farm.boot_id, farm.mac)
    assert request["proof"] == hmac.new(farm.secret.encode(), message, hashlib.sha256).hexdigest()
    client, address, arch = request.pop("client"), request.pop("address"), request.pop("arch")
    assert client.startswith("client.") and address == "127.0.0.1" and arch
    assert request == {
        "mac": farm.mac, "macs": [farm.mac, "52:54:00:77:00:02"], "boot_id": farm.boot_id, "board": "b1", "agent": "a1",
        "proof": request["proof"], "serial": 'SN-"1"\\x', "compatible": ["linux,dummy-virt", "second,name"],
        "memory_mb": 977, "kernel": "6.1.0-test",
    }  # fmt: skip
    presence = farm.expect("self")
    assert presence["state"] == "online" and presence["boot_id"] == farm.boot_id and "work" not in presence
    assert presence["uptime_s"] == 12.34 and presence["os"].startswith("Test ")
    assert farm.expect("work/result", kind="ask") == {"kind": "ask", "boot_id": farm.boot_id}


def test_the_interface_of_the_boot_loader_registers(farm, start):
    start(cmdline="boardhand.mqtt=127.0.0.1:PORT boardhand.prefix=bh BOOTIF=01-52-54-00-77-00-02")
    assert farm.expect("register")["mac"] == "52:54:00:77:00:02"


def test_repeats_its_registration_until_it_is_answered(farm, start):
    start()
    first = farm.expect("register")
    began = time.monotonic()
    assert farm.expect("register") == first
    assert 1 < time.monotonic() - began < 50, "every 5 s, and when we were let hear of it"


def test_a_refused_board_says_so_and_takes_no_work(farm, start):
    board = start()
    farm.expect("register")
    answer = {"ok": False, "boot_id": farm.boot_id, "error": {"kind": "not-allowed", "message": 'the "proof" is wrong'}}
    farm.tell("bh/register/52-54-00-77-00-01", answer)
    board.wait_output('registration refused: the "proof" is wrong')
    farm.offer("echo no")
    farm.quiet(1, "self")
    assert all(message.topic.endswith("register") for message in farm.seen)


def test_an_answer_for_an_earlier_boot_and_a_retained_one_are_not_taken(farm, start):
    farm.tell("bh/register/52-54-00-77-00-01", {"ok": True, "boot_id": farm.boot_id, "board": "b1"}, retain=True)
    start()
    farm.expect("register")
    farm.tell("bh/register/52-54-00-77-00-01", {"ok": True, "boot_id": "another", "board": "b1"})
    farm.quiet(1, "self")


def test_an_unknown_board_takes_the_name_that_it_is_given(farm, start):
    start(known=False)
    request = farm.expect("register")
    assert "board" not in request and "proof" not in request
    farm.tell("bh/register/52-54-00-77-00-01", {"ok": True, "boot_id": farm.boot_id, "board": "b1"})
    assert farm.expect("self")["state"] == "online"
    farm.expect("work/result", kind="ask")


def test_who_only_says_to_be_a_board_neither_throws_it_off_nor_speaks_for_it(farm, start, server):
    """Until the agent has said yes there is no will, and the client id is the MAC's."""
    real = MqttConnection("127.0.0.1", server.port, "bh-b1", timeout_s=60)
    real.connect()
    impostor = start()
    farm.expect("register")
    answer = {"ok": False, "boot_id": farm.boot_id, "error": {"kind": "not-allowed", "message": "not you"}}
    farm.tell("bh/register/52-54-00-77-00-01", answer)
    impostor.wait_output("registration refused")
    impostor.end()
    farm.quiet(1, "self")
    real.publish("bh/test", b"still here")  # raises where the connection was taken over
    real.close()


def test_work_passes(farm, start):
    start()
    farm.bring_up()
    farm.offer("echo one; echo two >&2; echo $GREETING $BOARDHAND_JOB", "printf 'a\\tb\\n'; pwd >/dev/null",
               env={"GREETING": "it's $HOME \"x\"\nnew ü"})  # fmt: skip
    assert farm.expect("work/result", kind="accept") == {
        "kind": "accept", "job": "j1", "token": 1, "boot_id": farm.boot_id,
    }  # fmt: skip
    assert farm.expect("self")["work"] == "j1"
    outcome = farm.outcome()
    assert outcome["outcome"] == "passed" and "problem" not in outcome
    assert [(s["name"], s["exit_code"]) for s in outcome["steps"]] == [("s0", 0), ("s1", 0)]
    assert farm.log() == 'one\ntwo\nit\'s $HOME "x" new ü j1\na\tb\n'
    assert outcome["log_chunks"] == len([m for m in farm.seen if b'"log"' in m.payload])
    farm.ack()
    assert "work" not in farm.expect("self")
    farm.expect("work/result", kind="ask")


def test_the_first_step_that_fails_ends_the_job(farm, start):
    start()
    farm.bring_up()
    farm.offer("true", "echo bad; exit 3", "echo never")
    outcome = farm.outcome()
    assert outcome["outcome"] == "failed"
    assert [s.get("exit_code") for s in outcome["steps"]] == [0, 3, None]
    assert "s1" in outcome["steps"][2]["problem"]
    assert farm.log() == "bad\n"


def test_a_step_that_takes_too_long_is_killed_with_its_children(farm, start, tmp_path):
    start()
    farm.bring_up()
    alive = tmp_path / "alive"
    run = f"(while :; do date >{alive}; sleep 0.1; done) & echo started; sleep 60"
    farm.offer({"name": "slow", "run": run, "timeout_s": 1.5}, "echo never")
    outcome = farm.outcome()
    assert outcome["outcome"] == "failed" and "timed out after 1.5 s" in outcome["problem"]
    assert "exit_code" not in outcome["steps"][0] and 1 <= outcome["steps"][0]["took_s"] < 50
    assert farm.log() == "started\n"
    written = alive.stat().st_mtime_ns
    time.sleep(0.5)  # five rounds of the child, had it survived
    assert alive.stat().st_mtime_ns == written


def test_a_stop_ends_the_job_as_error(farm, start):
    start()
    farm.bring_up()
    farm.offer("echo go; sleep 60")
    farm.expect("work/result", kind="log")
    farm.work({"kind": "stop", "job": "j1", "token": 7, "reason": "somebody else's"})
    farm.work({"kind": "stop", "job": "j1", "token": 1, "reason": "not wanted"})
    outcome = farm.outcome()
    assert outcome["outcome"] == "error" and "not wanted" in outcome["problem"]


def test_an_outcome_is_repeated_until_it_is_acknowledged(farm, start):
    start()
    farm.bring_up()
    farm.offer("true")
    first = farm.outcome()
    began = time.monotonic()
    assert farm.outcome() == first
    assert 1 < time.monotonic() - began < 50, "every 5 s, and when we were let hear of it"
    farm.ack(token=9)
    farm.quiet(0.5, "work/result", kind="ask")
    farm.ack()
    farm.expect("work/result", kind="ask")


def test_the_same_offer_is_never_run_twice(farm, start, tmp_path):
    start()
    farm.bring_up()
    count = tmp_path / "count"
    run = f"echo x >>{count}; sleep 1"
    farm.offer(run)
    farm.expect("work/result", kind="accept")
    farm.offer(run)  # while it runs: said again
    farm.expect("work/result", kind="accept")
    first = farm.outcome()
    farm.offer(run)  # done and not acknowledged
    assert farm.outcome() == first
    farm.ack()
    farm.expect("work/result", kind="ask")
    farm.offer(run)  # done and acknowledged
    assert farm.outcome() == first
    assert count.read_text() == "x\n"
    farm.offer(run, token=2)  # a new token is a new lease: once more
    assert farm.expect("work/result", kind="outcome", token=2)["outcome"] == "passed"
    assert count.read_text() == "x\nx\n"


def test_a_refused_result_is_dropped(farm, start):
    start()
    farm.bring_up()
    farm.offer("echo go; sleep 60")
    farm.expect("work/result", kind="log")
    farm.ack(ok=False)
    farm.expect("work/result", kind="ask")
    farm.quiet(0.5, "work/result", kind="outcome")


def test_a_long_log_arrives_whole_and_in_order(farm, start):
    start()
    farm.bring_up()
    count = 'i=0; while [ $i -lt 4000 ]; do echo "line $i ü€"; i=$((i+1)); done'
    farm.offer(count + "; printf 'nul:\\000 esc:\\033 bad:\\377'")
    outcome = farm.outcome()
    lines = farm.log().splitlines()
    assert lines[:4000] == [f"line {i} ü€" for i in range(4000)]
    assert lines[4000] == "nul:\0 esc:\x1b bad:\ufffd"
    assert outcome["log_chunks"] == len([m for m in farm.seen if b'"log"' in m.payload])


def test_the_log_is_streamed_while_the_step_runs(farm, start):
    start()
    farm.bring_up()
    farm.offer("echo first; sleep 3; echo second")
    assert farm.expect("work/result", kind="log")["text"] == "first\n", "not held back until the end"
    farm.outcome()
    assert farm.log() == "first\nsecond\n"


@pytest.mark.parametrize("away_s", [0.0, 3.0])
def test_work_survives_a_restart_of_the_server(farm, start, server, away_s):
    start()
    farm.bring_up()
    farm.offer("for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.5; done")
    farm.expect("work/result", kind="log")
    server.kill()
    time.sleep(away_s)
    server.start()
    farm.connect()
    assert farm.expect("self", 90)["work"] == "j1"
    assert farm.outcome()["outcome"] == "passed"
    assert farm.log() == "".join(f"line {i}\n" for i in range(1, 9))
    farm.ack()
    farm.expect("work/result", kind="ask")


def test_an_outcome_that_falls_into_an_outage_arrives_afterwards(farm, start, server):
    start()
    farm.bring_up()
    farm.offer("echo before; sleep 1; echo after")
    farm.expect("work/result", kind="log")
    server.kill()
    time.sleep(2)
    server.start()
    farm.connect()
    assert farm.expect("work/result", 90, kind="outcome")["outcome"] == "passed"
    assert farm.log() == "before\nafter\n"


def test_a_power_cut_is_told_by_the_will(farm, start):
    board = start()
    farm.bring_up()
    board.end()
    assert farm.expect("self", state="offline") == {"state": "offline", "boot_id": farm.boot_id}


def test_the_order_to_reboot_is_said_and_done(farm, start):
    board = start()
    farm.bring_up()
    farm.work({"kind": "reboot", "reason": "update"})
    assert farm.expect("self", state="offline")["boot_id"] == farm.boot_id
    assert board.wait() == 0
    assert "would reboot" in board.output.read_text()
    farm.quiet(0.5, "self")  # the will is not sent on top


def test_the_order_to_power_down_ends_what_runs(farm, start, tmp_path):
    board = start()
    farm.bring_up()
    alive = tmp_path / "alive"
    farm.offer(f"while :; do date >{alive}; echo x; sleep 0.1; done")
    farm.expect("work/result", kind="log")
    farm.work({"kind": "poweroff"})
    farm.expect("self", state="offline")
    assert board.wait() == 0
    assert "would power down" in board.output.read_text()
    written = alive.stat().st_mtime_ns
    time.sleep(0.5)  # five rounds of the step, had it survived
    assert alive.stat().st_mtime_ns == written


def test_sigterm_is_a_clean_end(farm, start):
    board = start()
    farm.bring_up()
    board.child.send_signal(signal.SIGTERM)
    farm.expect("self", state="offline")
    assert board.wait() == 0


NONSENSE = [
    b"", b"{", b"[]", b"null", b"5", b'"offer"', b"{}", b'{"kind":5}', b'{"kind":"dance"}', b"\xff\xfe\x00",
    b"[" * 3000, b'{"kind":"ack"}', b'{"kind":"stop","job":7}',
    b'{"kind":"offer"}', b'{"kind":"offer","job":"x","token":"1","steps":[]}',
    b'{"kind":"offer","job":"x","token":1,"steps":[{"name":"a"}]}', b'{"kind":"offer","job":"x","token":1,"steps":5}',
    b'{"kind":"offer","job":"$(reboot)","token":1,"steps":[{"name":"a","run":5}]}',
]  # fmt: skip


def test_nonsense_changes_nothing(farm, start):
    start()
    farm.bring_up()
    for payload in NONSENSE:
        farm._link.publish("bh/board/b1/work", payload)
    farm.offer("echo fine")
    assert farm.outcome()["outcome"] == "passed"
    assert farm.log() == "fine\n"


def test_retained_work_is_never_acted_on(farm, start):
    farm.tell("bh/board/b1/work", {"kind": "reboot"}, retain=True)
    start()
    farm.bring_up()
    farm.quiet(1, "self", state="offline")


@pytest.mark.parametrize("cmdline", ["quiet", "boardhand.mqtt=nowhere", "boardhand.mqtt=h:1 boardhand.secret=short"])
def test_a_wrong_command_line_ends_it_with_2_and_says_which_key(start, cmdline):
    board = start(cmdline=cmdline)
    assert board.wait() == 2
    assert "boardhand.secret" in board.output.read_text() or "boardhand.mqtt" in board.output.read_text()


def test_it_waits_for_a_server_that_is_not_there_yet(start, server):
    server.kill()
    board = start()
    board.wait_output("connection lost")
    server.start()
    from board.client import MqttConnection

    with MqttConnection("127.0.0.1", server.port, "late") as link:
        link.subscribe("bh/register")
        message = link.receive(60)
    assert message is not None and json.loads(message.payload)["board"] == "b1"


def test_the_steps_of_one_job_share_a_folder_and_the_next_job_has_its_own(farm, start):
    start()
    farm.bring_up()
    farm.offer("echo kept >file", "cat file")
    assert farm.outcome()["outcome"] == "passed"
    farm.ack()
    farm.expect("work/result", kind="ask")
    farm.offer("cat file", job="j2", token=2)
    assert farm.outcome("j2")["outcome"] == "failed"


def test_a_second_offer_is_answered_with_what_it_is_at(farm, start):
    start()
    farm.bring_up()
    farm.offer("sleep 2")
    farm.expect("work/result", kind="accept", job="j1")
    farm.offer("true", job="j2", token=2)
    farm.expect("work/result", kind="accept", job="j1")
    farm.outcome()
    farm.ack()
    farm.expect("work/result", kind="ask")
    farm.offer("true", job="j2", token=3)
    assert farm.outcome("j2")["outcome"] == "passed"


def test_a_server_that_freezes_in_the_middle_of_a_log_loses_nothing(farm, start, server):
    board = start()
    farm.bring_up()
    farm.offer("i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.05; done")
    farm.expect("work/result", kind="log")
    server.freeze()
    board.wait_output("connection lost")
    server.thaw()
    farm.connect()
    assert farm.expect("work/result", 90, kind="outcome")["outcome"] == "passed"
    assert farm.log() == "".join(f"line {i}\n" for i in range(60))
