"""The contract as an AsyncAPI 3.0 document: `python -m wire.asyncapi` prints it, `make docs` stores it.

Addresses are made by `wire.topics`, schemas by the models of `wire.payloads`; only who says what to whom stands here.
"""

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from pydantic.json_schema import models_json_schema

from wire import CONTRACT_VERSION, multinode, payloads
from wire.names import ID_PATTERN, PREFIX_PATTERN
from wire.phases import PowerAction
from wire.topics import Topics

Json = dict[str, object]

MQTT_BINDING_VERSION = "0.2.0"
QOS = 1  # the whole contract: at least once, and every receiver drops what it has seen
POWER_WORD = "PowerWord"
"""The message that is no JSON: the bare word of a power command."""


class Role(StrEnum):
    """Who speaks on a channel. `operator` is anyone whom the MQTT server lets: a person, a script, a CI system."""

    AGENT = "agent"
    BOARD = "board"
    BROKER = "broker"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Channel:
    """One topic function of `wire.topics.Topics` and what travels there."""

    topic: Callable[..., str]
    messages: tuple[type[payloads.Payload], ...]
    senders: tuple[Role, ...]
    receivers: tuple[Role, ...]
    retained: bool = False
    will: str | None = None
    """The `state` that the sender's will puts here."""
    clearable: bool = False
    """An empty retained payload takes it away."""
    bare_words: bool = False
    reply: Callable[..., str] | None = None


_AGENT, _BOARD, _BROKER, _OPERATOR = (Role.AGENT,), (Role.BOARD,), (Role.BROKER,), (Role.OPERATOR,)
_READERS = (Role.BROKER, Role.OPERATOR)

CHANNELS = (
    Channel(Topics.agent_state, (payloads.AgentState,), _AGENT, _READERS, retained=True, will="lost"),
    Channel(Topics.agent_info, (payloads.AgentInfo,), _AGENT, _READERS, retained=True),
    Channel(Topics.agent_request, (payloads.Request,), _READERS, _AGENT, reply=Topics.agent_response),
    Channel(Topics.agent_response, (payloads.Response,), _AGENT, _READERS),
    Channel(Topics.agent_alert, (payloads.Alert,), _AGENT, _OPERATOR, retained=True, clearable=True),
    Channel(Topics.board_state, (payloads.BoardState,), _AGENT, _READERS, retained=True),
    Channel(Topics.board_info, (payloads.BoardInfo,), _AGENT, _READERS, retained=True),
    Channel(Topics.telemetry, (payloads.Telemetry,), _AGENT, _OPERATOR),
    Channel(Topics.alert, (payloads.Alert,), _AGENT, _OPERATOR, retained=True, clearable=True),
    Channel(
        Topics.board_self,
        (payloads.BoardSelf,),
        _BOARD,
        (Role.AGENT, Role.BROKER, Role.OPERATOR),
        retained=True,
        will="offline",
    ),
    Channel(
        Topics.lease,
        (payloads.Lease,),
        _BROKER,
        (Role.AGENT, Role.OPERATOR),
        retained=True,
        clearable=True,
    ),
    Channel(
        Topics.work,
        (payloads.WorkOffer, payloads.WorkAck, payloads.WorkStop, payloads.BoardOrder),
        _BROKER,
        _BOARD,
        reply=Topics.work_result,
    ),
    Channel(
        Topics.work_result,
        (payloads.WorkAsk, payloads.WorkAccept, payloads.WorkLog, payloads.WorkArtifact, payloads.WorkOutcome),
        _BOARD,
        _BROKER,
    ),
    Channel(Topics.work_call, (multinode.WorkCall,), _BOARD, _BROKER, reply=Topics.work_answer),
    Channel(Topics.work_answer, (multinode.WorkAnswer,), _BROKER, _BOARD),
    Channel(
        Topics.power_set,
        (payloads.PowerCommand,),
        _READERS,
        _AGENT,
        bare_words=True,
        reply=Topics.power_result,
    ),
    Channel(Topics.power_result, (payloads.PowerResult,), _AGENT, _READERS),
    Channel(Topics.event, (payloads.Event,), _AGENT, _READERS),
    Channel(Topics.register, (payloads.Registration,), _BOARD, _AGENT, reply=Topics.register_answer),
    Channel(Topics.register_answer, (payloads.RegistrationAnswer,), _AGENT, _BOARD),
    Channel(Topics.broker_state, (payloads.BrokerState,), _BROKER, _OPERATOR, retained=True, will="lost"),
    Channel(Topics.broker_request, (payloads.Request,), _OPERATOR, _BROKER, reply=Topics.broker_response),
    Channel(Topics.broker_response, (payloads.Response,), _BROKER, _OPERATOR),
    Channel(Topics.job_state, (payloads.JobSummary,), _BROKER, _OPERATOR),
    Channel(Topics.lease_state, (payloads.LeaseNotice,), _BROKER, _OPERATOR),
    Channel(Topics.notify, (payloads.JobSummary,), _BROKER, _READERS),
)

_PARAMETERS: dict[str, Json] = {
    "prefix": {"default": "boardhand", "description": f"The farm's topic prefix; matches {PREFIX_PATTERN}"},
    "agent": {"description": f"The agent's id; matches {ID_PATTERN}"},
    "board": {"description": f"The board's id; matches {ID_PATTERN}"},
    "job": {"description": f"The job's id; matches {ID_PATTERN}"},
    "lease": {"description": f"The lease's id; matches {ID_PATTERN}"},
    "name": {"description": f"What the alert is about, or the name that a job notifies; matches {ID_PATTERN}"},
    "verb": {"description": f"What is asked for; matches {ID_PATTERN}"},
    "mac": {"description": "The board's MAC address in lower case with dashes, 52-54-00-12-34-56"},
}
# What stands in for a parameter while the topic function is called, since `{board}` is no id.
_STAND_INS = {name: f"stand-in-{name}" for name in _PARAMETERS} | {"mac": "02-00-00-00-00-01"}


def document() -> Json:
    """The whole contract as an AsyncAPI 3.0 document."""
    models = sorted({model for channel in CHANNELS for model in channel.messages}, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    messages = {model.__name__: _message(model) for model in models}
    messages[POWER_WORD] = {
        "contentType": "text/plain",
        "payload": {"enum": [action.value for action in PowerAction], "type": "string"},
        "summary": "A power command as a bare word, for people and shells; case and outer blanks do not matter.",
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "boardhand",
            "version": CONTRACT_VERSION,
            "description": "A farm of boards over MQTT 3.1.1. Every payload is one JSON object in UTF-8 unless said"
            " otherwise; unknown keys are tolerated, wrong types are answered with an error that names the key. A"
            " retained command is never acted on.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {channel_name(channel.topic): _channel(channel) for channel in CHANNELS},
        "operations": dict(operation for channel in CHANNELS for operation in _operations(channel)),
        "components": {"messages": messages, "parameters": dict(_PARAMETERS), "schemas": schemas["$defs"]},
    }


def text() -> str:
    """`document()` as it stands in docs/asyncapi.json: sorted, so that a difference is a change of the contract."""
    return json.dumps(_settled(document()), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _settled(node: object) -> object:
    """The same JSON whichever release of pydantic wrote the schemas: they differ in `0` and `0.0`, and in saying
    `additionalProperties: true`, which is the default."""
    if isinstance(node, dict):
        return {
            key: _settled(value) for key, value in node.items() if not (key == "additionalProperties" and value is True)
        }
    if isinstance(node, list):
        return [_settled(value) for value in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node


def channel_name(topic: Callable[..., str]) -> str:
    """The name of a topic function's channel, `board_state` as `boardState`."""
    first, *rest = topic.__name__.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _parameters(topic: Callable[..., str]) -> list[str]:
    return ["prefix", *(name for name in inspect.signature(topic).parameters if name != "self")]


def address(topic: Callable[..., str]) -> str:
    """The address of a topic function with its parameters in braces, `{prefix}/board/{board}/state`."""
    names = _parameters(topic)
    made = topic(Topics(_STAND_INS["prefix"]), *(_STAND_INS[name] for name in names[1:]))
    for name in names:
        made = made.replace(_STAND_INS[name], f"{{{name}}}")
    return made


def _message(model: type[payloads.Payload]) -> Json:
    described: Json = {"payload": {"$ref": f"#/components/schemas/{model.__name__}"}}
    own_docstring = model.__dict__.get("__doc__")
    if own_docstring:
        described["summary"] = inspect.cleandoc(own_docstring).split("\n\n")[0].replace("\n", " ")
    return described


def _message_names(channel: Channel) -> list[str]:
    return [model.__name__ for model in channel.messages] + ([POWER_WORD] if channel.bare_words else [])


def _channel(channel: Channel) -> Json:
    described: Json = {
        "address": address(channel.topic),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _message_names(channel)},
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in _parameters(channel.topic)},
    }
    if channel.will is not None:
        described["x-will-state"] = channel.will
    if channel.clearable:
        described["x-cleared-by-empty-payload"] = True
    return described


def _operations(channel: Channel) -> Iterator[tuple[str, Json]]:
    """One operation for each role that sends or receives here; `x-role` says whose it is."""
    name = channel_name(channel.topic)
    reference = {"$ref": f"#/channels/{name}"}
    messages = [{"$ref": f"#/channels/{name}/messages/{message}"} for message in _message_names(channel)]
    for action, roles in (("send", channel.senders), ("receive", channel.receivers)):
        binding: Json = {"bindingVersion": MQTT_BINDING_VERSION, "qos": QOS}
        if action == "send":
            binding["retain"] = channel.retained
        for role in roles:
            operation: Json = {
                "action": action,
                "bindings": {"mqtt": binding},
                "channel": reference,
                "messages": messages,
                "x-role": role.value,
            }
            if channel.reply is not None:
                operation["reply"] = {"channel": {"$ref": f"#/channels/{channel_name(channel.reply)}"}}
            yield f"{role.value}{action.capitalize()}s{name[0].upper()}{name[1:]}", operation


if __name__ == "__main__":
    sys.stdout.write(text())
