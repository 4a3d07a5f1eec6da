import pytest
from pydantic import ValidationError

from agent.pdu_listener.settings import Endpoint, ListenerError, PduListenerTable, contradictions


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:16421", ("127.0.0.1", 16421)),
        ("127.0.0.1", ("127.0.0.1", 16421)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", 16421)),
        ("0.0.0.0:16421", ("0.0.0.0", 16421)),
    ],
)
def test_an_endpoint_is_an_address_and_a_port(text, endpoint):
    assert Endpoint.parse(text) == endpoint
    assert Endpoint.parse(str(Endpoint.parse(text))) == endpoint


@pytest.mark.parametrize("text", ["", ":1", "pdu.example:1", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", "1:2:3"])
def test_what_is_no_endpoint_is_refused(text):
    with pytest.raises(ValueError, match=r"write ADDRESS:PORT|is no port"):
        Endpoint.parse(text)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({}, "opens nothing"),
        ({"http": "127.0.0.1:1", "tcp": "127.0.0.1:1"}, "cannot share"),
        ({"http": "0.0.0.0:1"}, "give token_file or token_env, or say anyone_may_switch"),
        ({"tcp": "192.0.2.1:1"}, "no place for a token"),
        ({"tcp": "192.0.2.1:1", "token_env": "T"}, "no place for a token"),
        ({"http": "127.0.0.1:1", "token_env": "T", "token_file": "/dev/null"}, "keep one"),
        ({"http": "127.0.0.1:1", "token_file": "/nowhere/token"}, "is not there"),
        ({"http": "127.0.0.1:1", "port": 3}, "Extra inputs"),
        ({"http": "127.0.0.1:1", "aliases": {"a b": "pi"}}, "pattern"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(table, problem):
    with pytest.raises(ValidationError, match=problem):
        PduListenerTable(**table)


@pytest.mark.parametrize(
    "table",
    [
        {"http": "127.0.0.1:1", "tcp": "127.0.0.1:2"},
        {"http": "127.0.0.1:0", "tcp": "127.0.0.1:0"},
        {"http": "0.0.0.0:1", "token_env": "T", "tcp": "[::1]:1"},
        {"tcp": "0.0.0.0:1", "anyone_may_switch": True},
    ],
)
def test_settings_that_can_be_meant(table):
    assert PduListenerTable(**table).aliases == {}


def test_the_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("sixteen-letters-\nand a remark\n")
    assert PduListenerTable(http="127.0.0.1", token_file=file).read_token() == b"sixteen-letters-"
    monkeypatch.setenv("PDU_TOKEN", " another-token-of-ours ")
    assert PduListenerTable(http="127.0.0.1", token_env="PDU_TOKEN").read_token() == b"another-token-of-ours"
    assert PduListenerTable(http="127.0.0.1").read_token() is None


def test_a_token_that_is_missing_or_short_is_an_error_without_the_token(tmp_path, monkeypatch):
    monkeypatch.delenv("PDU_TOKEN", raising=False)
    with pytest.raises(ListenerError, match="PDU_TOKEN: holds less than 16"):
        PduListenerTable(http="127.0.0.1", token_env="PDU_TOKEN").read_token()
    file = tmp_path / "token"
    file.write_text("short-one\n")
    table = PduListenerTable(http="127.0.0.1", token_file=file)
    with pytest.raises(ListenerError) as caught:
        table.read_token()
    assert "short-one" not in str(caught.value)
    file.unlink()
    with pytest.raises(ListenerError, match="cannot be read"):
        table.read_token()


def test_aliases_have_to_lead_somewhere():
    aliases = {"a": "pi", "b": "rack:1", "c": "gone", "d": "nopdu:1", "e": "rack:"}
    found = dict(contradictions(PduListenerTable(http="127.0.0.1", aliases=aliases), {"rack": 1}, {"pi": 1}))
    assert [key[-1] for key in found] == ["c", "d", "e"]
    assert "no board 'gone'" in found["pdu_listener", "aliases", "c"]
    assert "no controller 'nopdu'; known are: rack" in found["pdu_listener", "aliases", "d"]
