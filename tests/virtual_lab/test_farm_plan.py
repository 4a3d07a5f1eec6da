"""What a farm consists of, and that the agent takes the settings that are written for it."""

import dataclasses

import pytest

from agent.settings import load
from virtual_lab import farm_plan
from virtual_lab.farm_plan import FarmPlan
from virtual_lab.namespace import LabError


@pytest.fixture
def plan(tmp_path):
    folder = tmp_path / 'a "quoted" \\ folder é'
    folder.mkdir()
    files = {name: folder / name for name in ("kernel", "initrd", "device_tree", "light-kernel", "password")}
    for path in files.values():
        path.write_bytes(b"x")
    made = FarmPlan(
        folder=str(folder), sockets=str(folder / "s"), agent="lab", prefix="farm/one", prefix_length=20,
        qemu="q", uboot="u", kernel=str(files["kernel"]), initrd=str(files["initrd"]),
        device_tree=str(files["device_tree"]), mqtt_username="me", mqtt_password_file=str(files["password"]),
        joining="open", boards=farm_plan.qemu_boards(3, unlisted=1), lights=farm_plan.light_boards(300),
    )  # fmt: skip
    for board in made.boards:
        spec = made.qemu_spec(board)
        spec.folder.mkdir(parents=True)
        spec.device_tree.write_bytes(b"x")
    return made


def test_the_agent_takes_the_settings(plan):
    plan.agent_settings.write_text(farm_plan.agent_toml(plan))
    settings = load(plan.agent_settings)
    assert settings.agent.name == "lab"
    assert (settings.mqtt.username, settings.mqtt.prefix) == ("me", "farm/one")
    assert sorted(name for name in settings.boards if name.startswith("virt")) == ["virt-1", "virt-2"]
    assert len(settings.boards) == 302
    assert len(settings.controllers) == 303, "the unlisted board has a power switch too"
    assert settings.netboot is not None
    assert settings.netboot.joining == "open"
    assert str(settings.boards["light-251"].address) == "10.77.2.1"


@pytest.mark.parametrize(("boards", "lights", "profile"), [(0, 2, "light"), (2, 0, "virtual")])
def test_a_farm_of_one_kind_needs_the_files_of_that_kind_only(plan, boards, lights, profile):
    small = dataclasses.replace(
        plan, boards=farm_plan.qemu_boards(boards), lights=farm_plan.light_boards(lights), joining="open"
    )
    small.agent_settings.write_text(farm_plan.agent_toml(small))
    settings = load(small.agent_settings)
    assert list(settings.profiles) == [profile]
    assert settings.netboot is not None
    assert settings.netboot.joining_profile == profile


def test_a_plan_survives_json(plan):
    assert FarmPlan.from_json(plan.to_json()) == plan


def test_macs_and_addresses_are_all_different():
    boards = [*farm_plan.qemu_boards(farm_plan.MAX_QEMU_BOARDS), *farm_plan.light_boards(farm_plan.MAX_LIGHT_BOARDS)]
    assert len({board.mac for board in boards}) == len(boards)
    assert len({board.address for board in boards} | {*farm_plan.POOL, "10.77.0.1"}) == len(boards) + 3


def test_both_ways_of_booting_are_in_every_farm():
    assert {board.own_environment for board in farm_plan.qemu_boards(2)} == {True, False}


@pytest.mark.parametrize("wrong", [lambda: farm_plan.qemu_boards(81), lambda: farm_plan.light_boards(1001)])
def test_too_many_boards_are_refused(wrong):
    with pytest.raises(LabError, match="a farm has 0 to"):
        wrong()
