"""A port that goes is told once, however often it is looked for until it is back."""

import errno

import pytest

from agent.console import lines
from agent.console.lines import GoneError, HeldError, OpenError
from tests.agent.console.boards import until


@pytest.fixture
def refusals(monkeypatch):
    """Every failure to open a port, in the order in which they came."""
    found, opened = [], lines.opened

    async def watched(place, table):
        try:
            return await opened(place, table)
        except OpenError as error:
            found.append(error)
            raise

    monkeypatch.setattr("agent.console.port.opened", watched)
    monkeypatch.setattr("agent.console.port.RETRY_S", 0.05)
    return found


async def test_one_going_is_one_note(farm, board, tmp_path, refusals):
    link = tmp_path / "console"
    one = board(link)
    made = await farm({"b1": str(link)})
    await made.open("b1")
    refusals.clear()
    one.vanishes()
    await until("it was looked for again and again", lambda: len(refusals) >= 3)
    assert {type(error) for error in refusals} == {GoneError}
    board(link)
    await made.open("b1")
    assert [state.is_open for _, state in made.states] == [True, False, True]


async def test_another_reason_is_told(farm, board, tmp_path, refusals, monkeypatch):
    """Who holds a port that came back is news, and so is that it went again."""
    link = tmp_path / "console"
    one = board(link)
    made = await farm({"b1": str(link)})
    await made.open("b1")
    one.vanishes()
    await until("it was looked for", lambda: refusals)

    async def held(place, table):
        raise HeldError("held by minicom (process 7); end that program")

    async def gone(place, table):
        raise GoneError("no such device")

    for opening, words in ((held, "held by minicom"), (gone, "no such device")):
        monkeypatch.setattr("agent.console.port.opened", opening)
        monkeypatch.setattr("agent.console.port.HELD_RETRY_S", 0.05)
        await until(words, lambda words=words: words in (made.desk.consoles["b1"].port.state.why or ""))


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, GoneError),
        (errno.ENODEV, GoneError),  # its node is still there, and its driver is not
        (errno.ENXIO, GoneError),
        (errno.EIO, GoneError),  # it is being hung up
        (errno.EACCES, OpenError),
        (None, OpenError),
    ],
)
def test_what_means_that_there_is_none(number, kind):
    assert type(lines._failed(number, "what")) is kind
