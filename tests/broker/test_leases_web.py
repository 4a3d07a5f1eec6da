"""Leases of people over the HTTP API: who may do what with whose."""

import json

import pytest

from tests.broker.live import BrokerProcess
from tests.broker.test_web import serving, token_for

ROLES = {"alice": "user", "bob": "user", "olga": "operator", "rita": "reader"}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    return file, {name: token_for(file, name, role) for name, role in ROLES.items()}


async def test_mine_are_mine_and_no_token_is_shown(tmp_path, tokens):
    file, known = tokens
    async with serving(tmp_path, file) as (farm, api):
        broker = BrokerProcess(tmp_path, int(farm.link._settings.port), idle_s=0)
        broker.start()
        try:
            await farm.broker_state("online")
            wish = {"board": "b1", "for_s": 600, "comment": "c"}
            status, _, _ = await api.call("POST", "/api/v1/leases", known["rita"], json=wish)
            assert status == 403
            status, found, _ = await api.call("POST", "/api/v1/leases", known["alice"], json=wish)
            assert (status, found["board"], found["holder"]) == (201, "b1", "alice")
            assert "token" not in found
            lease = found["lease"]
            status, found, _ = await api.call("POST", "/api/v1/leases", known["bob"], json=wish)
            assert status == 403
            assert "held by alice until" in found["error"]["message"]
            status, found, _ = await api.call("POST", "/api/v1/leases", known["bob"], json={**wish, "wait": True})
            assert (status, found["waits"]) == (201, "waits for b1 to be free")
            for path, data in (("release", {}), ("extend", {"for_s": 900}), ("hand-over", {"to": "bob"})):
                status, found, _ = await api.call("POST", f"/api/v1/leases/{lease}/{path}", known["bob"], json=data)
                assert status == 403
                assert "reserved by alice, not by bob" in found["error"]["message"]
            board = await api.until("/api/v1/boards/b1", known["rita"], lambda board: board["lease"])
            assert {"holder": "alice", "kind": "person", "comment": "c"}.items() <= board["lease"].items()
            assert board["lease"]["ends"] < board["lease"]["expires"]
            status, found, _ = await api.call(
                "POST", "/api/v1/leases/b1/hand-over", known["alice"], json={"to": "rita"}
            )
            assert (status, found["holder"], "token" in found) == (200, "rita", False)
            status, _, _ = await api.call("POST", f"/api/v1/leases/{lease}/release", known["olga"])
            assert status == 200, "an operator releases anybody's"
            listed = await api.until(
                "/api/v1/leases", known["rita"], lambda found: found["leases"][0].get("board") == "b1"
            )
            assert [line["holder"] for line in listed["leases"]] == ["bob"]
            assert '"token"' not in json.dumps(listed)
        finally:
            broker.cleanup()


async def test_all_who_wait_are_listed_however_many_answers_it_takes(tmp_path, tokens):
    file, known = tokens
    async with serving(tmp_path, file) as (farm, api):
        broker = BrokerProcess(tmp_path, int(farm.link._settings.port), idle_s=0)
        broker.start()
        try:
            await farm.broker_state("online")
            await farm.ask("reserve", {"holder": "first", "board": "b1"})
            for number in range(900):
                data = {"holder": f"p{number}", "board": "b1", "wait": True, "comment": "x" * 200}
                await farm.link.publish(
                    farm.topics.broker_request("reserve"),
                    json.dumps({"transaction": f"w{number}", "data": data}).encode(),
                )
            listed = await api.until("/api/v1/leases", known["rita"], lambda found: len(found["leases"]) == 901)
            assert [line["holder"] for line in listed["leases"]] == ["first", *(f"p{n}" for n in range(900))]
            assert (await farm.ask("leases")).data["more"] is True, "one answer does not hold them"
        finally:
            broker.cleanup()
