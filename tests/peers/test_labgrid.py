"""labgrid, unchanged and in its own environment, drives boards through our listener."""

import pytest

TOKEN = "a-token-of-the-tests"
OK = {"returned": None}


def rest(host, index=3, user=""):
    url = f"http://{user}{host}:16421/power/outlet/pdu05/{{index}}"
    return {"NetworkPowerPort": {"model": "rest", "host": url, "index": index}}, {"NetworkPowerDriver": {"delay": 0.1}}


def pdudaemon(host, index=3):
    return {"PDUDaemonPort": {"host": host, "pdu": "pdu05", "index": index}}, {"PDUDaemonDriver": {"delay": 1.0}}


async def test_labgrid_by_rest(lab, labgrid):
    lab = await lab()
    results = await labgrid(*rest(lab.host), "get", "on", "get", "off", "get", "on", "cycle", "get")
    assert [result.get("returned", result) for result in results] == [False, None, True, None, False, None, None, True]
    assert lab.edges() == [("3", True), ("3", False), ("3", True), ("3", False), ("3", True)]


async def test_labgrid_by_rest_on_an_outlet_without_a_board(lab, labgrid):
    lab = await lab()
    assert await labgrid(*rest(lab.host, 5), "on", "get") == [OK, {"returned": True}]
    assert (lab.edges(), lab.commands.asked_for) == ([("5", True)], [])


async def test_labgrid_as_a_client_of_pdudaemon(lab, labgrid):
    lab = await lab()
    assert await labgrid(*pdudaemon(lab.host), "on", "off", "on", "cycle") == [OK] * 4
    assert lab.edges() == [("3", True), ("3", False), ("3", True), ("3", False), ("3", True)]
    # labgrid sends its own delay, rounded up, and it is the least time without power.
    assert lab.commands.asked_for[-1] == ("b3", "cycle", 1.0)


@pytest.mark.parametrize("way", [rest, pdudaemon])
async def test_a_pdu_that_lies_makes_labgrid_fail(lab, labgrid, way):
    lab = await lab()
    (result,) = await labgrid(*way(lab.host, 7), "on")
    assert result["raised"] == "HTTPError"
    assert "502 Server Error: Bad Gateway" in result["text"]
    assert lab.edges() == []


async def test_a_pdu_that_is_silent_makes_labgrid_fail_and_has_no_state(lab, labgrid):
    lab = await lab()
    lab.pdu.deaf = True
    results = await labgrid(*rest(lab.host), "off", "get")
    assert [result["raised"] for result in results] == ["HTTPError", "HTTPError"]
    assert "504 Server Error" in results[0]["text"]
    assert "503 Server Error" in results[1]["text"]
    assert (await labgrid(*pdudaemon(lab.host), "off"))[0]["raised"] == "HTTPError"


async def test_labgrid_shows_the_token_that_stands_in_its_url(lab, labgrid):
    lab = await lab(token=TOKEN)
    refused = await labgrid(*rest(lab.host), "on")
    assert "401 Client Error" in refused[0]["text"]
    assert await labgrid(*rest(lab.host, user=f"labgrid:{TOKEN}@"), "on", "get") == [OK, {"returned": True}]
    assert lab.edges() == [("3", True)]


async def test_labgrid_as_a_client_of_pdudaemon_shows_the_token_of_netrc(lab, labgrid, netrc):
    lab = await lab(token=TOKEN)
    assert "401 Client Error" in (await labgrid(*pdudaemon(lab.host), "on"))[0]["text"]
    assert await labgrid(*pdudaemon(lab.host), "on", environ=netrc(lab.host, TOKEN)) == [OK]
    assert lab.edges() == [("3", True)]
