"""LAVA's programs on a board: both forms of the client carry their calls, over a real MQTT server."""

import json

from broker.groups.multinode_payloads import WorkCall
from broker.jobs.lava_signals import Signals
from broker.jobs.spec import parse_job
from broker.jobs.steps import wire_steps
from wire.payloads import decode

GROUP = "b1\tserver\nb2\tclient\nb3\tclient"


def offer(farm, script, *, group=GROUP, token=1):
    step = {"name": "test", "run": script, "timeout_s": 60}
    spec = parse_job(json.dumps({"name": "j1", "lava": True, "steps": [step]}))
    steps = [step.model_dump(exclude_none=True) for step in wire_steps(spec)]
    env = {"BOARDHAND_GROUP": group, "BOARDHAND_ROLE": "server"} if group else {}
    farm.work({"kind": "offer", "job": "j1", "token": token, "expires": "2030-01-01T00:00:00Z", "name": "j1",
               "steps": steps, "env": env})  # fmt: skip


def expect_call(farm):
    found = farm.expect("work/call", kind="call", job="j1")
    return found["call"], decode(WorkCall, json.dumps(found).encode()).text


def answer(farm, call, text="", *, ok=True):
    said = {"kind": "answer", "job": "j1", "token": 1, "call": call, "ok": ok, "text": text}
    farm.tell("bh/board/b1/work/answer", said)


def test_send_wait_and_sync(farm, start, tmp_path):
    start()
    farm.bring_up()
    cache, network = tmp_path / "cache", tmp_path / "network"
    offer(
        farm,
        f"""export LAVA_MULTI_NODE_CACHE={cache} LAVA_MULTI_NODE_NETWORK_CACHE={network}
        lava-send ready 'ip=10.0.0.1' 'odd="q" \\ ä' && echo sent
        lava-wait done; cat {cache}
        lava-wait-all done client; cat {cache}
        lava-sync end && lava-network collect eth0 client && lava-network query b2 ipv4
        lava-network alias-hosts {tmp_path}/hosts; cat {tmp_path}/hosts
        lava-wait never || echo refused""",
    )
    call, text = expect_call(farm)
    assert text == 'send ready\nip=10.0.0.1\nodd="q" \\ ä\n'
    answer(farm, "call-nobody", "of another")
    answer(farm, call)
    for wanted, given in (
        ("wait done\n", "from=b2\n"),
        ("wait-all done client\n", "b2:a=1\nb3:a=2\n"),
        ("sync end\n", ""),
        ("wait-all network_info client\n", "b2:ipv4=10.0.0.2\nb2:hostname=two\nb3:ipv4=10.0.0.3\n"),
    ):
        call, text = expect_call(farm)
        assert text == wanted
        answer(farm, call, given)
    call, _ = expect_call(farm)
    answer(farm, call, "never: nobody is left to send it", ok=False)
    assert farm.outcome()["outcome"] == "passed"
    assert farm.log() == (
        "sent\nfrom=b2\nb2:a=1\nb3:a=2\n<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=lava-sync-end RESULT=pass>\n10.0.0.2\n"
        "10.0.0.2\ttwo\tclient01\n10.0.0.3\tb3\tclient02\n"
        "lava-wait: never: nobody is left to send it\nrefused\n"
    )


def test_who_we_are(farm, start):
    start()
    farm.bring_up()
    offer(
        farm,
        """lava-self; lava-role; lava-role list | tr '\\n' ' '; echo
        lava-group; lava-group client; lava-group nobody || echo none""",
    )
    assert farm.outcome()["outcome"] == "passed"
    assert farm.log() == f"b1\nserver\nserver client \n{GROUP}\nb2\nb3\nnone\n"


def test_results(farm, start):
    start()
    farm.bring_up()
    offer(
        farm,
        """lava-test-set start net
        lava-test-case ping --shell true
        lava-test-case 'two words' --shell exit 3
        lava-test-set stop
        lava-test-case speed --result pass --measurement 12.5 --units MB/s
        lava-test-case later --result skip
        lava-test-case bad --result maybe || echo refused
        lava-wait x || echo alone""",
        group="",
    )
    assert farm.outcome()["outcome"] == "passed"
    signals = Signals()
    for line in farm.log().splitlines():
        signals.look(line)
    assert [(case.name, case.passed) for case in signals.cases] == [
        ("net/ping", True), ("net/two_words", False), ("speed", True), ("later", False),
    ]  # fmt: skip
    assert signals.failure() == "test case net/two_words failed"
    assert signals.cases[2].problem == "measured 12.5 MB/s"
    assert "refused\n" in farm.log()
    assert "this job has no group\nalone\n" in farm.log()


def test_a_call_is_said_again_until_it_is_answered_also_over_a_lost_connection(farm, server, start, tmp_path):
    start()
    farm.bring_up()
    offer(farm, f"LAVA_MULTI_NODE_CACHE={tmp_path}/cache lava-wait x && cat {tmp_path}/cache")
    first, _ = expect_call(farm)
    assert expect_call(farm)[0] == first, "repeated"
    server.kill()
    server.start()
    farm.connect()
    assert expect_call(farm)[0] == first, "after the connection came back"
    answer(farm, first, "k=v\n")
    assert farm.outcome()["outcome"] == "passed"
    assert "k=v\n" in farm.log()


def test_calls_die_with_their_step(farm, start):
    start()
    farm.bring_up()
    offer(farm, "lava-wait x")
    expect_call(farm)
    farm.work({"kind": "stop", "job": "j1", "token": 1, "reason": "test"})
    assert farm.outcome()["outcome"] == "error"
    farm.quiet(5.5, "work/call")
