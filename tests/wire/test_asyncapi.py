"""docs/asyncapi.json is current, is AsyncAPI 3.0 in structure, and leaves no topic out."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from wire import CONTRACT_VERSION, asyncapi
from wire.topics import Topics

ROOT = Path(__file__).parents[2]
DOCUMENT = json.loads(asyncapi.text())


def nodes(node, path="#"):
    yield path, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        yield from nodes(value, f"{path}/{key}")


def resolved(reference: str):
    node = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def test_the_stored_document_is_current():
    stored = (ROOT / "docs/asyncapi.json").read_text(encoding="utf-8")
    assert stored == asyncapi.text(), "the contract has changed: run `make docs`, and see whether its version must rise"


def test_the_module_prints_it():
    done = subprocess.run(
        [sys.executable, "-m", "wire.asyncapi"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == asyncapi.text()


def test_every_topic_function_has_its_channel_and_every_channel_a_function():
    makers = {
        asyncapi.channel_name(function)
        for name, function in vars(Topics).items()
        if inspect.isfunction(function) and not name.startswith(("_", "every_", "parse_"))
    }
    assert makers == DOCUMENT["channels"].keys()
    assert len(asyncapi.CHANNELS) == len(makers)


def test_required_fields_of_asyncapi_3():
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert DOCUMENT["info"]["title"] == "boardhand"
    assert DOCUMENT["info"]["version"] == CONTRACT_VERSION
    allowed = {"asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components"}
    assert DOCUMENT.keys() <= allowed
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in {"send", "receive"}
        assert operation["channel"].keys() == {"$ref"}


def test_every_reference_resolves_and_nothing_is_left_over():
    references = {node["$ref"] for _, node in nodes(DOCUMENT) if isinstance(node, dict) and "$ref" in node}
    for reference in references:
        assert resolved(reference) is not None
    for kind, entries in DOCUMENT["components"].items():
        unused = {name for name in entries if f"#/components/{kind}/{name}" not in references}
        assert not unused, f"nobody uses these {kind}"


@pytest.mark.parametrize("name", DOCUMENT["channels"])
def test_a_channel_declares_exactly_the_parameters_of_its_address(name):
    channel = DOCUMENT["channels"][name]
    assert set(re.findall(r"\{([a-z]+)\}", channel["address"])) == channel["parameters"].keys()
    assert "stand-in" not in channel["address"]
    assert channel["address"].startswith("{prefix}/")
    assert channel["messages"]


@pytest.mark.parametrize("name", DOCUMENT["channels"])
def test_a_channel_is_sent_to_and_received_from(name):
    operations = [
        entry for entry in DOCUMENT["operations"].values() if entry["channel"]["$ref"] == f"#/channels/{name}"
    ]
    assert {entry["action"] for entry in operations} == {"send", "receive"}
    for entry in operations:
        assert all(ref["$ref"].startswith(f"#/channels/{name}/messages/") for ref in entry["messages"])
        assert entry["bindings"]["mqtt"]["qos"] == 1
    retained = {entry["bindings"]["mqtt"]["retain"] for entry in operations if entry["action"] == "send"}
    assert len(retained) == 1


def test_commands_are_never_retained():
    for name, operation in DOCUMENT["operations"].items():
        if re.search(r"Sends(PowerSet|Work|AgentRequest|BrokerRequest|Register)$", name):
            assert operation["bindings"]["mqtt"]["retain"] is False


def test_what_is_retained_by_contract():
    retained = {
        entry["channel"]["$ref"].removeprefix("#/channels/")
        for entry in DOCUMENT["operations"].values()
        if entry["bindings"]["mqtt"].get("retain")
    }
    state = {"agentState", "agentInfo", "boardState", "boardInfo", "boardSelf", "brokerState"}
    assert retained == state | {"agentAlert", "alert", "lease"}


def test_a_request_names_the_channel_of_its_answer():
    replies = {
        entry["channel"]["$ref"]: entry["reply"]["channel"]["$ref"]
        for entry in DOCUMENT["operations"].values()
        if "reply" in entry
    }
    assert replies == {
        "#/channels/agentRequest": "#/channels/agentResponse",
        "#/channels/brokerRequest": "#/channels/brokerResponse",
        "#/channels/powerSet": "#/channels/powerResult",
        "#/channels/register": "#/channels/registerAnswer",
        "#/channels/work": "#/channels/workResult",
        "#/channels/workCall": "#/channels/workAnswer",
    }
