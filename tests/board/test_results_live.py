"""What a job leaves and when it has passed, for both forms of the client against a real MQTT server."""

import base64
import functools
import hashlib
import http.server
import json
import threading

import pytest

from broker.jobs.spec import parse_job
from broker.jobs.steps import wire_steps


def offer(farm, *steps, paths=(), max_bytes=1 << 20, job="j1", token=1):
    made = [{"name": f"s{n}", "timeout_s": 60, **step} for n, step in enumerate(steps)]
    message = {"kind": "offer", "job": job, "token": token, "expires": "2030-01-01T00:00:00Z", "name": job}
    wish = {"artifacts": {"paths": list(paths), "max_bytes": max_bytes}} if paths else {}
    farm.work({**message, "steps": made, "env": {}, **wish})


def files_of(farm, job="j1"):
    """name -> its bytes, or the problem, as a broker would put it together."""
    found = {}
    for message in farm.seen:
        piece = json.loads(message.payload)
        if piece.get("kind") != "artifact" or piece["job"] != job:
            continue
        data = found.setdefault(piece["n"], [piece["name"], b"", None])
        assert piece["offset"] == len(data[1]), "pieces come in order"
        data[1] += base64.b64decode(piece["data"], validate=True)
        data[2] = piece.get("problem")
        if "sha256" in piece:
            assert hashlib.sha256(data[1]).hexdigest() == piece["sha256"]
        elif "problem" not in piece:
            data[2] = "no end"
    assert sorted(found) == list(range(len(found)))
    return {name: problem or data for name, data, problem in found.values()}


def test_exit_codes_and_going_on(farm, start):
    start()
    farm.bring_up()
    offer(
        farm,
        {"run": "exit 77", "exit_codes": [0, 77]},
        {"run": "exit 3", "continue_on_fail": True},
        {"run": "sleep 60", "timeout_s": 0.5, "continue_on_fail": True},
        {"run": "echo last"},
    )
    outcome = farm.outcome()
    assert outcome["outcome"] == "failed"
    assert [step.get("exit_code") for step in outcome["steps"]] == [77, 3, None, 0]
    assert "timed out" in outcome["steps"][2]["problem"]
    assert farm.log() == "last\n"
    farm.ack()
    farm.expect("work/result", kind="ask")
    offer(farm, {"run": "exit 77", "exit_codes": [77]}, {"run": "true"}, job="j2", token=2)
    assert farm.outcome("j2")["outcome"] == "passed"


def test_artifacts_come_before_the_outcome_also_of_a_job_that_failed(farm, start):
    start()
    farm.bring_up()
    big = "x=$(seq 1 4000) && printf '%s\\n' $x $x $x $x $x > 'big one.txt'"
    offer(
        farm,
        {"run": f"mkdir out && printf 'a\\000b\\377' > out/raw && : > empty && mkdir dir.txt && {big}"},
        {"run": 'printf \'%s\' "it\'s" > "out/q\'\\"\\\\.log"; ln -s out/raw link; exit 1'},
        {"run": "echo never"},
        paths=["*.txt", "out/*", "empty", "link", "no such*", "out/raw"],
    )
    outcome = farm.outcome()
    assert outcome["outcome"] == "failed" and "not run" in outcome["steps"][2]["problem"]
    text = "".join(f"{n}\n" for n in range(1, 4001)).encode() * 5
    assert files_of(farm) == {
        "big one.txt": text,
        "out/q'\"\\.log": b"it's",
        "out/raw": b"a\0b\xff",
        "empty": b"",
        "link": b"a\0b\xff",
        "no such*": "nothing has that name",
    }
    last = [json.loads(m.payload).get("kind") for m in farm.seen if m.topic.endswith("work/result")]
    assert last[-1] == "outcome"


def test_what_does_not_fit_is_named(farm, start):
    start()
    farm.bring_up()
    offer(farm, {"run": "printf 123456 > a; printf 1234567 > b; printf 1234 > c"}, paths=["?"], max_bytes=10)
    assert farm.outcome()["outcome"] == "passed"
    assert files_of(farm) == {
        "a": b"123456",
        "b": "its 7 bytes are more than the 4 that may still be sent",
        "c": b"1234",
    }


@pytest.mark.parametrize("how", ["stop", "ack-no"])
def test_a_job_that_is_ended_while_it_sends_its_files(farm, start, how):
    start()
    farm.bring_up()
    offer(farm, {"run": "head -c 8000000 /dev/zero > zeros"}, paths=["zeros"], max_bytes=10_000_000)
    farm.expect("work/result", kind="artifact")
    if how == "stop":
        farm.work({"kind": "stop", "job": "j1", "token": 1, "reason": "cancelled"})
        outcome = farm.outcome()
        assert outcome["outcome"] == "error" and outcome["problem"] == "stopped: cancelled"
        farm.ack()
    else:
        farm.ack(ok=False)
    farm.expect("work/result", kind="ask")
    offer(farm, {"run": "true"}, job="j2", token=2)
    assert farm.outcome("j2")["outcome"] == "passed"


def test_files_go_on_after_the_server_was_away(farm, start, server):
    start()
    fast = farm.accept_registration()["client"].startswith("client.py")
    farm.expect("work/result", kind="ask")
    # So much that the server is killed in the middle of it.
    size = 60_000_000 if fast else 3_000_000
    offer(farm, {"run": f"head -c {size} /dev/zero > zeros"}, paths=["zeros"], max_bytes=size)
    farm.expect("work/result", kind="artifact")
    server.kill()
    server.start()
    farm.connect()
    assert farm.outcome()["outcome"] == "passed"
    ends = []
    for message in farm.seen:
        piece = json.loads(message.payload)
        if piece.get("kind") == "artifact":
            ends.append(piece["offset"] + len(base64.b64decode(piece["data"])))
    # What the server had taken and not passed on when it was killed is lost with it, which a broker then says.
    assert ends[-1] == size and len(ends) > 10


def test_files_are_brought_by_ordinary_steps(farm, start, tmp_path):
    start()
    farm.bring_up()
    text = "it's $HOME `id` \\n\n" + "ü" * 30_000
    spec = parse_job(json.dumps({
        "name": "t", "steps": ["cat conf/a.txt; ./run; ls -l run | cut -c 1-10"],
        "files": [
            {"path": "conf/a.txt", "text": text},
            {"path": "run", "text": "#!/bin/sh\necho ran\n", "mode": "755"},
        ],
    }, ensure_ascii=False))  # fmt: skip
    steps = wire_steps(spec)
    assert len(steps) > 2
    offer(farm, *(step.model_dump(exclude_none=True) for step in steps))
    assert farm.outcome()["outcome"] == "passed"
    assert farm.log() == text + "ran\n-rwxr-xr-x\n"


@pytest.fixture
def web(tmp_path):
    """A real HTTP server on loopback; gives its URL and the folder that it serves."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


def test_a_file_by_url_is_used_only_with_its_checksum(farm, start, web):
    url, folder = web
    data = bytes(range(256)) * 3000
    (folder / "big.bin").write_bytes(data)
    start()
    farm.bring_up()

    def job(sha256, name="big.bin"):
        file = {"path": "in/x.bin", "url": f"{url}/{name}", "sha256": sha256}
        spec = parse_job(json.dumps({"name": "t", "steps": ["test $(wc -c <in/x.bin) -eq 768000"], "files": [file]}))
        return [step.model_dump(exclude_none=True) for step in wire_steps(spec)]

    offer(farm, *job(hashlib.sha256(data).hexdigest().upper()))
    outcome = farm.outcome()
    assert outcome["outcome"] == "passed", farm.log()
    farm.ack()
    farm.expect("work/result", kind="ask")
    offer(farm, *job("ab" * 32), job="j2", token=2)
    assert farm.outcome("j2")["steps"][0]["exit_code"] == 1
    assert "has the checksum" in farm.log("j2")
    farm.ack("j2", 2)
    farm.expect("work/result", kind="ask")
    offer(farm, *job("ab" * 32, "missing"), job="j3", token=3)
    assert farm.outcome("j3")["steps"][0]["exit_code"] == 1
    assert "cannot be fetched from" in farm.log("j3")
