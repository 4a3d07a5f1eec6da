"""pdudaemon's own pduclient, which LAVA calls, and curl, against our listener."""

import json
import shlex

SENT = "Command sent successfully."


def outlet(number, command, *more):
    return ("--hostname", "pdu05", "--port", str(number), "--command", command, *more)


async def test_pduclient_by_http(lab, pduclient):
    lab = await lab()
    assert await pduclient(lab.host, "--http", *outlet(1, "on")) == (0, SENT)
    assert await pduclient(lab.host, "--http", *outlet(1, "reboot", "--delay", "1")) == (0, SENT)
    assert await pduclient(lab.host, "--http", *outlet(1, "off")) == (0, SENT)
    assert lab.edges() == [("1", True), ("1", False), ("1", True), ("1", False)]
    assert lab.commands.asked_for[1] == ("b1", "cycle", 1.0)


async def test_pduclient_by_tcp(lab, pduclient):
    lab = await lab()
    assert await pduclient(lab.tcp_host, *outlet("04", "on")) == (0, SENT)
    assert await pduclient(lab.tcp_host, *outlet("04", "reboot", "--delay", "1")) == (0, SENT)
    assert await pduclient(lab.tcp_host, *outlet(6, "on")) == (0, SENT)
    assert lab.edges() == [("4", True), ("4", False), ("4", True), ("6", True)]


async def test_pduclient_sees_failure_and_why(lab, pduclient):
    lab = await lab()
    code, text = await pduclient(lab.host, "--http", *outlet(7, "on"))
    assert (code, "replied: <Response [502]>" in text) == (127, True)
    code, text = await pduclient(lab.tcp_host, *outlet(7, "on"))
    assert code == 127
    assert "replied: nack: b7: pdu05:7: accepted on" in text
    code, text = await pduclient(lab.tcp_host, *outlet(99, "on"))
    assert (code, "nack: pdu05:99: " in text) == (127, True)
    code, text = await pduclient(lab.tcp_host, "--hostname", "nobody", "--port", "1", "--command", "off")
    assert (code, "no controller is named 'nobody'" in text) == (127, True)
    assert lab.edges() == []


async def test_pduclient_shows_the_token_of_netrc(lab, pduclient, netrc):
    token = "a-token-of-the-tests"
    lab = await lab(token=token)
    code, text = await pduclient(lab.host, "--http", *outlet(1, "on"))
    assert (code, "<Response [401]>" in text) == (127, True)
    assert await pduclient(lab.host, "--http", *outlet(1, "on"), environ=netrc(lab.host, token)) == (0, SENT)


async def test_curl_as_labs_call_it(lab, curl):
    lab = await lab()
    control = f"http://{lab.host}:16421/power/control"
    assert await curl(f"{control}/on?alias=the-dut", "--fail") == (0, "OK - accepted request\n")
    assert await curl(f"http://{lab.host}:16421/power/state?alias=b2", "--fail") == (0, "on\n")
    # pdudaemon leaves the board off after this one.
    code, text = await curl(f"{control}/reboot?hostname=pdu05&port=2&delay=abc")
    assert (code, text.startswith("Invalid request: delay 'abc'")) == (0, True)
    assert (await curl(f"{control}/reboot?hostname=pdu05&port=2&delay=abc", "--fail"))[0] == 22
    assert lab.edges() == [("2", True)]
    code, text = await curl(f"{control}/on?hostname=pdu05&port=7", *shlex.split("-H 'Accept: application/json'"))
    answer = json.loads(text)
    assert (answer["ok"], answer["error"]["kind"]) == (False, "not-verified")
    put = f"http://{lab.host}:16421/power/outlet/pdu05/2"
    assert await curl(put, "--fail", "-X", "PUT", "--data", "0") == (0, "")
    assert await curl(put, "--fail") == (0, "0")
