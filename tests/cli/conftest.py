from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.farm_double import AgentDouble, mosquitto


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    with mosquitto(tmp_path / "mosquitto") as port:
        yield port


@pytest.fixture
def agent(server: int) -> Iterator[AgentDouble]:
    with AgentDouble(server) as double:
        yield double
