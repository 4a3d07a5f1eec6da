"""What a reload looks at before it touches anything, and that no action begins in its middle."""

import json
from types import SimpleNamespace

import pytest

from agent import reloading
from agent.power.errors import ConfigurationError
from agent.requests import RequestError
from agent.settings import AgentSettings
from agent.settings_diff import diff
from tests.agent.test_actions import NOW, bench
from wire.phases import ErrorKind, Phase

__all__ = ["bench"]

BOARD = {
    "feed": ["rack:pi4"],
    "client": "console",
    "console": {"device": "/dev/ttyUSB0"},
    "actuators": {"strap": {"outlet": "relays:1"}},
    "modes": {"normal": ["strap off"]},
}
WRONG = 'no controller "nowhere"'


def settings(board=BOARD, **more):
    rack = {"driver": "command", "on": ["true"], "off": ["true"], "state": ["true"]}
    tables = {
        "agent": {"name": "attic", "state_dir": "/nowhere"},
        "controllers": {"rack": rack, "relays": rack, "other": rack},
        "boards": {"bone": {"feed": ["rack:bone"]}} | ({"pi4": board} if board else {}),
    }
    return AgentSettings.model_validate({**tables, **more})


def taking_up(bench, wanted):
    """The agent's reload to `wanted`, as far as its power, which refuses."""
    old = settings()
    bench.phase = getattr(bench, "phase", Phase.READY)
    unit = SimpleNamespace(life=SimpleNamespace(phase=bench.phase))
    bench.agent.settings = old
    bench.agent.actions = bench.actions
    bench.agent.shelf = SimpleNamespace(unit=lambda _board: unit)
    bench.agent.power = SimpleNamespace(prepare=bench.prepare)
    bench.agent.learning = SimpleNamespace(outlets=frozenset())
    return reloading._TakingUp(bench.agent, wanted, diff(old, wanted))


@pytest.fixture
def reload(bench):
    bench.closed = None

    def prepare(_power):
        bench.closed = set(bench.actions._closed)
        raise ConfigurationError(WRONG, controller="nowhere")

    bench.prepare = prepare
    return bench


CHANGES = {
    "gone": settings(None),
    "mode": settings(BOARD | {"modes": {"normal": ["strap on"]}}),
    "console": settings(BOARD | {"console": {"device": "/dev/ttyUSB1"}}),
    "actuator's controller": settings(
        controllers={
            "rack": {"driver": "command", "on": ["true"], "off": ["true"], "state": ["true"]},
            "other": {"driver": "command", "on": ["true"], "off": ["true"], "state": ["true"]},
            "relays": {"driver": "command", "on": ["false"], "off": ["true"], "state": ["true"]},
        }
    ),
}
HARMLESS = settings(BOARD | {"labels": {"shelf": "3"}, "boot_timeout_s": 99})


@pytest.mark.parametrize("wanted", CHANGES.values(), ids=CHANGES)
async def test_a_board_that_is_being_put_back_is_not_changed(reload, wanted):
    reload.agent.modes.recovering.add("pi4")
    with pytest.raises(RequestError, match=r"board pi4: it is being put back after .* settings are others") as told:
        await taking_up(reload, wanted).run()
    assert (told.value.info.kind, told.value.info.key) == (ErrorKind.BUSY, "boards.pi4")
    assert reload.closed is None, "nothing was touched"
    with pytest.raises(RequestError, match="no controller"):
        await taking_up(reload, HARMLESS).run()


@pytest.mark.parametrize("change", ["gone", "console"])
async def test_a_job_on_a_console_keeps_it(reload, change):
    reload.phase = Phase.BUSY
    with pytest.raises(RequestError, match="board pi4: a job is under way on its console") as told:
        await taking_up(reload, CHANGES[change]).run()
    assert told.value.info.kind is ErrorKind.BUSY
    for wanted in (HARMLESS, CHANGES["mode"]):
        with pytest.raises(RequestError, match="no controller"):
            await taking_up(reload, wanted).run()


@pytest.mark.parametrize("wanted", CHANGES.values(), ids=CHANGES)
async def test_no_action_begins_on_a_board_that_is_about_to_be_another(reload, wanted):
    with pytest.raises(RequestError, match="no controller"):
        await taking_up(reload, wanted).run()
    assert reload.closed == {"pi4"}
    reload.may_end.set()
    reload.agent.shelf = {"pi4": object()}
    payload = json.dumps({"transaction": "t", "data": {"board": "pi4"}}).encode()
    assert (await reload.actions.answer("flash", payload, NOW)).ok, "a reload that failed leaves nothing closed"
