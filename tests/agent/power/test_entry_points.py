"""Drivers of installed packages: a small real package, a fresh process, the real command."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

ACME = '''
"""A driver as somebody outside writes it."""

from pathlib import Path
from typing import Literal

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.errors import ConfigurationError
from agent.power.settings import ControllerBase
from wire.phases import Power


class AcmeSettings(ControllerBase):
    driver: Literal["acme"]
    folder: Path


class AcmeDriver:
    reads_back = True
    timing = Timing()

    def __init__(self, name, settings):
        self.name = name
        self.folder = settings.folder

    def lamp(self, outlet):
        if outlet not in {"1", "2"}:
            raise ConfigurationError("an acme has two outlets", controller=self.name, outlet=outlet)
        return self.folder / outlet

    async def set(self, outlet, on):
        self.lamp(outlet).touch() if on else self.lamp(outlet).unlink(missing_ok=True)

    async def get(self, outlet):
        return Power.ON if self.lamp(outlet).exists() else Power.OFF

    async def read(self, outlet):
        return None

    async def describe(self):
        return [OutletDescription(outlet, power=await self.get(outlet)) for outlet in ("1", "2")]

    async def close(self):
        pass


def make(name, settings, context):
    return AcmeDriver(name, settings)


KIND = DriverKind("acme", AcmeSettings, "acme_power:make", lambda: (DeviceSupport("ACME", "yes", "a folder"),))
'''

SWITCH = """
import asyncio, sys
from pathlib import Path
from agent.power.journal import Journal, MemoryStore
from agent.power.readings import Listeners
from agent.power.service import PowerService
from agent.power.settings import BoardFeed
from agent.power.driver_kind import find_kind
from wire.phases import PowerAction

async def main():
    store = MemoryStore()
    settings = find_kind("acme").settings(driver="acme", folder=Path(sys.argv[1]))
    service = PowerService({"box": settings}, {"pi-1": BoardFeed(outlets=["box:2"], min_off_s=0)},
                           journal=Journal(store, "boot"), listeners=Listeners(lambda *_: None), poll_every_s=0)
    await service.start()
    outcome = await service.switch("pi-1", PowerAction.ON, operation_id="1")
    await service.close()
    await store.close()
    print(outcome.ok, outcome.power)

asyncio.run(main())
"""

CONFORM = """
import asyncio, sys
from pathlib import Path
import acme_power
from agent.power import conformance

class Bench(conformance.DriverBench):
    outlets = ("1", "2")
    can_silence = False
    folder = Path(sys.argv[1])

    def make(self):
        return acme_power.make("box", acme_power.AcmeSettings(driver="acme", folder=self.folder), None)

    async def truth(self, outlet):
        return (self.folder / outlet).exists()

    async def press(self, outlet, on):
        (self.folder / outlet).touch() if on else (self.folder / outlet).unlink(missing_ok=True)

for result in asyncio.run(conformance.check_driver(Bench())):
    print(f"{result.check}: {result.skipped or 'kept'}")
"""


class Site:
    """A folder with installed packages, for a fresh process."""

    def __init__(self, folder):
        self.folder = folder / "site"
        self.folder.mkdir()

    def install(self, package, module, code, points):
        (self.folder / f"{module}.py").write_text(textwrap.dedent(code))
        info = self.folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[boardhand.power_drivers]\n{lines}")

    def run(self, *arguments):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT)])}
        return subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def check(self, controller):
        """`boardhand check` on settings with this controller."""
        settings = self.folder.parent / "farm.toml"
        settings.write_text(
            f'[agent]\nname = "host"\nstate_dir = "{self.folder.parent}"\n\n[controllers.box]\n{controller}\n\n'
            '[boards.pi-1]\nfeed = ["box:2"]\n'
        )
        return self.run("-m", "cli", "check", str(settings))


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.fixture
def lamps(tmp_path):
    folder = tmp_path / "lamps"
    folder.mkdir()
    return folder


def test_a_driver_from_a_package_is_checked_switched_and_conforms(site, lamps):
    site.install("acme-power", "acme_power", ACME, {"acme": "acme_power:KIND"})
    good = site.check(f'driver = "acme"\nfolder = "{lamps}"')
    assert (good.returncode, good.stderr) == (0, ""), good.stderr
    typo = site.check(f'driver = "acme"\nfolder = "{lamps}"\nfloder = "x"')
    assert typo.returncode == 2
    assert "floder" in typo.stderr
    switched = site.run("-c", SWITCH, str(lamps))
    assert switched.stdout == "True on\n", switched.stderr
    assert [lamp.name for lamp in lamps.iterdir()] == ["2"]
    conforms = site.run("-c", CONFORM, str(lamps))
    assert "switches: kept\n" in conforms.stdout, conforms.stderr
    assert "silence: nobody can make this device deaf\n" in conforms.stdout


@pytest.mark.parametrize(
    ("code", "value", "said"),
    [
        ("import no_such_library", "acme_power:KIND", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise RuntimeError('no licence')", "acme_power:KIND", "RuntimeError: no licence"),
        ("", "acme_power:KIND", "AttributeError: module 'acme_power' has no attribute 'KIND'"),
        ("KIND = 7", "acme_power:KIND", "its entry point must name a DriverKind of this name, and names 7"),
        (ACME.replace('DriverKind("acme"', 'DriverKind("other"'), "acme_power:KIND", "a DriverKind of this name"),
        (ACME.replace('("acme", AcmeSettings', '("acme", dict'), "acme_power:KIND", "derived from ControllerBase"),
    ],
)
def test_a_broken_entry_point_is_one_line_that_names_it(site, lamps, code, value, said):
    site.install("acme-power", "acme_power", code, {"acme": value})
    found = site.check(f'driver = "acme"\nfolder = "{lamps}"')
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert "controllers.box" in line
    assert "driver 'acme'" in line
    assert said in line
    if "Error" in said:
        assert "acme_power:KIND (package acme-power) cannot be loaded" in line


def test_an_unknown_word_is_answered_with_those_that_are_known(site):
    site.install("acme-power", "acme_power", ACME, {"acme": "acme_power:KIND"})
    found = site.check('driver = "amce"')
    assert found.returncode == 2
    assert "there is no driver 'amce'; known are acme, command," in found.stderr


def test_a_package_does_not_replace_a_driver_of_ours_and_that_is_said(site, lamps):
    site.install("acme-power", "acme_power", ACME, {"command": "acme_power:KIND"})
    found = site.check('driver = "command"\non = ["true"]\noff = ["true"]')
    assert found.returncode == 0
    assert "driver 'command' of acme_power:KIND (package acme-power) is not used: boardhand has its own" in found.stderr


def test_two_packages_with_one_word_are_told_of(site, lamps):
    site.install("acme-power", "acme_power", ACME, {"acme": "acme_power:KIND"})
    site.install("acme-two", "acme_two", ACME, {"acme": "acme_two:KIND"})
    found = site.check(f'driver = "acme"\nfolder = "{lamps}"')
    assert found.returncode == 0
    assert "driver 'acme' of acme_" in found.stderr
    assert "is not used: acme_" in found.stderr
