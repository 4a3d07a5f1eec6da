"""What README and docs show as settings is taken by the settings' own classes: an example that fails helps nobody."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from agent.flash_settings import FlashesTable
from agent.netboot_settings import NetbootTable
from agent.pdu_listener.settings import PduListenerTable
from agent.power.driver_kind import BUILT_IN, ControllerSettings
from agent.power.settings import CircuitSettings
from agent.settings import BoardTable
from broker.settings import BrokerTable
from broker.web.settings import WebTable

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FILES = {"/etc/boardhand/health.yaml": str(ROOT / "examples" / "health.yaml")}
"""Files that the examples name and that their tables read, and where they stand here."""


def _here(block: str) -> str:
    for named, here in FILES.items():
        block = block.replace(named, here)
    return re.sub(r"(?m)^ {3}", "", block)


BLOCKS = [
    pytest.param(tomllib.loads(_here(block)), id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]
MODELS = {
    "boards": BoardTable,
    "circuits": CircuitSettings,
    "controllers": ControllerSettings,
}
WHOLE = {
    "broker": BrokerTable,
    "flash": FlashesTable,
    "netboot": NetbootTable,
    "pdu_listener": PduListenerTable,
    "web": WebTable,
}


@pytest.mark.parametrize("tables", BLOCKS)
def test_an_example_is_taken(tables):
    for name, model in MODELS.items():
        for key, table in tables.get(name, {}).items():
            if name == "boards" and "feed" not in table:
                continue  # a board shown in part: the rest stands above it
            if table.get("driver") == "acme":
                continue  # drivers.md shows a driver from outside
            if name == "controllers" and "driver" not in table:
                assert table.keys() <= {"shared_outlets", "circuit", "inrush_spacing_s"}, key
                continue
            TypeAdapter(model).validate_python(table)
    for name, model in WHOLE.items():
        if name in tables:
            model.model_validate(tables[name])


def test_every_kind_has_an_example():
    shown = {table.get("driver") for block in BLOCKS for table in block.values[0].get("controllers", {}).values()}
    assert set(BUILT_IN) - shown == set()
