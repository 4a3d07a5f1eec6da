"""Consoles with a pty, a UNIX socket or TCP in the place of a board."""

from contextlib import AsyncExitStack

import pytest

from agent.console.desk import ConsoleCalls, ConsoleDesk
from agent.console.settings import ConsolesTable, ConsoleTable
from tests.agent.console.boards import Farm, PtyBoard
from tests.free_ports import free_port


@pytest.fixture
async def farm(tmp_path):
    """Starts a farm: `farm = await make({"b1": "/dev/pts/3"}, keep_mb=1)`."""
    async with AsyncExitStack() as stack:

        async def make(boards, **consoles):
            tables = {
                board: ConsoleTable(**(value if isinstance(value, dict) else {"device": value}))
                for board, value in boards.items()
            }
            found = Farm(None, tmp_path / "state")
            calls = ConsoleCalls(
                on_sight=found.sights.append,
                on_state=lambda board, state: found.states.append((board, state)),
                on_trouble=found.troubles.append,
                lease=found.leases.get,
            )
            found.desk = ConsoleDesk(tables, ConsolesTable(**consoles), tmp_path / "state", calls)
            stack.push_async_callback(found.desk.stop)
            await found.desk.start()
            return found

        yield make


@pytest.fixture
def board():
    """Makes boards on ptys: `board()`, `board(link)`."""
    made = []

    def make(link=None):
        made.append(PtyBoard(link))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def free_ports():
    """Free TCP ports of this host: `first, second = free_ports(2)`."""

    return lambda count: [free_port() for _ in range(count)]
