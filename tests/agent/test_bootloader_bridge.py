"""The boot loader's desk wired: what its settings mean, and that nobody waits for a board at its prompt."""

import time
from ipaddress import IPv4Address, IPv4Interface
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from agent import bootloader_bridge
from agent.bootloader_settings import BootloaderTable, contradictions
from agent.life import BoardLife, LifeEvent
from agent.requests import RequestError
from wire.phases import Phase


def agent_with(life):
    submitted = []
    unit = SimpleNamespace(life=life)
    return SimpleNamespace(shelf=SimpleNamespace(unit=lambda _: unit), submit=submitted.append, submitted=submitted)


def test_a_board_at_its_prompt_is_not_late_and_one_that_is_let_go_is():
    life = BoardLife(boot_timeout_s=180.0)
    now = time.monotonic()
    life.on(LifeEvent.POWER_ON, now)
    agent = agent_with(life)
    bootloader_bridge._hold(agent, "pi", 3600.0)
    assert not life.boot_overdue(now + 3500)
    assert life.boot_overdue(now + 3700)
    bootloader_bridge._release(agent, "pi")
    assert life.boot_overdue(time.monotonic() + 180.0)
    before = life.boot_deadline
    bootloader_bridge._release(agent, "pi")
    assert life.boot_deadline == before, "asking again prolongs nothing"
    assert len(agent.submitted) == 2


@pytest.mark.parametrize("phase", [Phase.READY, Phase.BUSY, Phase.OFF, Phase.FAULT, Phase.MAINTENANCE])
def test_a_board_that_is_not_coming_up_gets_no_deadline(phase):
    life = BoardLife(boot_timeout_s=180.0, phase=phase)
    bootloader_bridge._hold(agent_with(life), "pi", 60.0)
    bootloader_bridge._release(agent_with(life), "pi")
    assert life.boot_deadline is None


def test_a_board_that_never_registers_is_never_late():
    life = BoardLife(boot_timeout_s=None)
    life.on(LifeEvent.POWER_ON, 0.0)
    bootloader_bridge._hold(agent_with(life), "pi", 60.0)
    bootloader_bridge._release(agent_with(life), "pi")
    assert life.boot_deadline is None


def settings(netboot=True, **board):
    table = SimpleNamespace(
        **{"bootloader": None, "console": "x", "profile": "p", "address": IPv4Address("10.0.0.5"), **board}
    )
    network = SimpleNamespace(address=IPv4Interface("10.0.0.1/16")) if netboot else None
    profile = SimpleNamespace(netboot_by="environment")
    return SimpleNamespace(boards={"pi": table}, netboot=network, profiles={"p": profile})


def test_what_to_boot_comes_from_the_board_and_the_network():
    order = bootloader_bridge._order(settings(), "pi")
    assert (order.server, order.address, order.netmask, order.commands) == ("10.0.0.1", "10.0.0.5", "255.255.0.0", ())
    with pytest.raises(RequestError, match="does not boot from this agent"):
        bootloader_bridge._order(settings(netboot=False), "pi")
    own = BootloaderTable(boot_commands=["boot net"], boot_s=50.0)
    order = bootloader_bridge._order(settings(netboot=False, bootloader=own), "pi")
    assert (order.server, order.commands, order.within_s) == (None, ("boot net",), 50.0)


def test_a_board_or_its_profile_asks_for_a_boot_by_dialogue():
    assert not bootloader_bridge.by_dialogue(settings(), "pi")
    assert bootloader_bridge.by_dialogue(settings(bootloader=BootloaderTable(netboot="dialogue")), "pi")
    found = settings()
    found.profiles["p"].netboot_by = "dialogue"
    assert bootloader_bridge.by_dialogue(found, "pi")
    assert not bootloader_bridge.by_dialogue(settings(profile=None), "pi")


@pytest.mark.parametrize(
    ("board", "has_netboot", "key"),
    [
        ({"console": None, "bootloader": BootloaderTable()}, True, ("boards", "pi", "bootloader")),
        ({"profile": None, "bootloader": BootloaderTable(netboot="dialogue")}, True, ("netboot",)),
        ({"address": None, "bootloader": BootloaderTable(netboot="dialogue")}, True, ("netboot",)),
        ({"bootloader": BootloaderTable(netboot="dialogue")}, False, ("netboot",)),
        ({"bootloader": BootloaderTable(netboot="dialogue", kind="barebox")}, True, ("boot_commands",)),
        ({"bootloader": BootloaderTable(netboot="dialogue")}, True, None),
        ({"profile": None, "bootloader": BootloaderTable(netboot="dialogue", boot_commands=["x"])}, False, None),
    ],
)
def test_settings_that_do_not_fit_together_are_told_by_their_key(board, has_netboot, key):
    found = [where for where, _ in contradictions(settings(**board).boards, has_netboot=has_netboot)]
    assert [where[-len(key) :] for where in found] == [key] if key else found == []


@pytest.mark.parametrize(
    "table",
    [
        {"kind": "grub"},
        {"stop": ""},
        {"stop": "ü"},
        {"line_most": 20},
        {"boot_commands": ["two\nlines"]},
        {"promt": "x"},
    ],
)
def test_settings_that_mean_nothing_are_refused(table):
    with pytest.raises(ValidationError):
        BootloaderTable(**table)
