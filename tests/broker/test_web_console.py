"""Consoles over the API: a whole desk of consoles as the agent has it, real sockets, and clients that are not nice."""

import asyncio
import contextlib
import json
import os
import pty
import tty

import aiohttp
import pytest

from agent.console.desk import ConsoleCalls, ConsoleDesk
from agent.console.settings import ConsolesTable, ConsoleTable
from agent.console.writer_place import Binding
from tests.broker.live import PATIENCE_S
from tests.broker.test_web import lease, serving, token_for
from wire.payloads import BoardInfo, encode

WANTED = {"reader": "reader", "alice": "user", "admin": "admin"}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    return file, {name: token_for(file, name, role) for name, role in WANTED.items()}


class Line:
    """The board's end of a serial line, and the agent's desk that has the other. It wants the lease's token."""

    def __init__(self, folder):
        self.board, port = pty.openpty()
        tty.setraw(port)
        table = ConsoleTable(device=os.ttyname(port), writers="lease")
        os.close(port)
        os.set_blocking(self.board, False)
        self.binding = None
        nothing = lambda *_: None
        calls = ConsoleCalls(nothing, nothing, nothing, lambda _board: self.binding)
        self.folder = folder
        self.make = lambda: ConsoleDesk({"b1": table}, ConsolesTable(), folder, calls)
        self.desk = self.make()

    async def __aenter__(self):
        await self.desk.start()
        async with asyncio.timeout(PATIENCE_S):
            # The desk tells nobody of it in these tests.
            while not self.desk.consoles["b1"].port.state.is_open:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return self

    async def restart(self):
        await self.desk.stop()
        self.desk = self.make()
        await self.__aenter__()

    async def __aexit__(self, *_):
        await self.desk.stop()
        os.close(self.board)

    def typed(self):
        with contextlib.suppress(BlockingIOError):
            return os.read(self.board, 65536)
        return b""

    async def hears(self, text):
        async with asyncio.timeout(PATIENCE_S):
            heard = b""
            while text not in heard:
                heard += self.typed()
                await asyncio.sleep(0.02)
            return heard

    async def info(self, farm):
        said = BoardInfo(console=f"unix:{self.folder}/consoles/b1.sock")
        await farm.say(farm.topics.board_info("b1"), encode(said), retain=True)


class Browser:
    """A WebSocket on a console, with everything that came."""

    def __init__(self, socket):
        self.socket, self.said, self.told = socket, b"", []

    async def until(self, wanted):
        async with asyncio.timeout(PATIENCE_S):
            while not (found := wanted(self)):
                message = await self.socket.receive()
                if message.type is aiohttp.WSMsgType.BINARY:
                    self.said += message.data
                elif message.type is aiohttp.WSMsgType.TEXT:
                    self.told.append(json.loads(message.data))
                else:
                    raise AssertionError(f"it ended ({message}); told: {self.told[-8:]}")
            return found

    async def state(self, **wanted):
        def found(browser):
            states = [message["state"] for message in browser.told if "state" in message]
            return states and wanted.items() <= states[-1].items()

        await self.until(found)

    async def tells(self, kind, words):
        await self.until(lambda browser: any(words in message.get(kind, "") for message in browser.told))

    async def says(self, text):
        await self.until(lambda browser: text in browser.said)


@contextlib.asynccontextmanager
async def looking(api, token, board="b1", **headers):
    url = f"{api.base}/api/v1/boards/{board}/console?recorded=false"
    head = {**({"Authorization": f"Bearer {token}"} if token else {}), **headers}
    async with api.session.ws_connect(url, headers=head, max_msg_size=0) as socket:
        yield Browser(socket)


async def known_board(farm, api, token, line):
    await line.info(farm)
    await api.until("/api/v1/boards/b1", token, lambda board: (board["info"] or {}).get("console"))


async def test_many_read_and_who_may_types(tmp_path, tokens):
    file, known = tokens
    async with serving(tmp_path, file) as (farm, api), Line(tmp_path) as line:
        await known_board(farm, api, known["reader"], line)
        async with looking(api, known["reader"]) as rita, looking(api, known["alice"]) as alice:
            await rita.state(connected=True, open=True, refused="reader is reader; typing is for users")
            await alice.state(connected=True, you=False, refused=None)
            os.write(line.board, b"login: \xff\x00")
            await rita.says(b"login: \xff\x00")
            await alice.says(b"login: \xff\x00")
            await rita.socket.send_bytes(b"rm -rf\r")
            await rita.tells("refused", "typing is for users")
            await alice.socket.send_bytes(b"too early\r")
            await alice.tells("refused", "take the keyboard first")
            await alice.socket.send_str('{"take": true}')
            await alice.state(you=True)
            await alice.socket.send_bytes("ro\u00f6t\r\n\xff".encode("latin-1"))
            assert await line.hears(b"\xff") == "ro\u00f6t\r\n\xff".encode("latin-1"), "and nothing of the others"
            await rita.state(writer="alice, on the page")
            # Her own lease: the agent wants its token, which she never sees.
            line.binding = Binding("alice", 911711)
            await lease(farm, "b1", "alice", token=911711)
            mine = lambda board: (board["lease"] or {}).get("holder") == "alice"
            await api.until("/api/v1/boards/b1", known["reader"], mine)
            await alice.socket.send_str('{"take": true}')
            await alice.socket.send_bytes(b"mine\r")
            await line.hears(b"mine\r")
            # It passes on: within a second she has the keyboard no more.
            line.binding = Binding("bob", 12)
            await lease(farm, "b1", "bob", token=12)
            await alice.state(you=False, writer=None)
            await alice.tells("note", "held by bob until")
            for frame in ("{", "[1]", '{"seen": -1}', '{"seen": "x", "take": 1}', '{"break": true}'):
                await alice.socket.send_str(frame)
            await alice.socket.send_bytes(b"late\r")
            await alice.tells("refused", "held by bob until")
            assert line.typed() == b""
            status, text, _ = await api.call("GET", "/metrics", known["reader"])
            assert (status, "boardhand_open_consoles 2.0" in text) == (200, True)
            assert 'boardhand_boards_leased{kind="job"} 1.0' in text
            assert "911711" not in json.dumps(alice.told)


async def test_it_outlives_the_agent_and_says_so(tmp_path, tokens):
    file, known = tokens
    async with serving(tmp_path, file) as (farm, api), Line(tmp_path) as line:
        await known_board(farm, api, known["reader"], line)
        async with looking(api, known["alice"]) as alice:
            await alice.state(connected=True)
            await line.restart()
            await alice.tells("note", "the agent ended the connection; it is tried again")
            await alice.tells("note", "connected again")
            os.write(line.board, b"after")
            await alice.says(b"after")
            await line.desk.stop()
            await alice.state(connected=False)
            await alice.tells("note", "on the host of agent lab1 alone")
            await alice.socket.send_str('{"take": true}')
            await alice.tells("refused", "not typed: the console is served on the host")
        line.desk = line.make()  # for its end


async def test_who_is_let_in(tmp_path):
    file = tmp_path / "tokens.toml"
    alice = token_for(file, "alice", "user")
    async with serving(tmp_path, file, anonymous=True) as (farm, api), Line(tmp_path) as line:
        await known_board(farm, api, alice, line)
        _, _, answer = await api.call("POST", "/api/v1/login", json={"token": alice})
        api.session.cookie_jar.clear()
        jar = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        for token, board, headers, status, words in (
            ("bh_guess", "b1", {}, 401, "not known"),
            (alice, "nemo", {}, 404, "no agent of this farm has it"),
            (None, "b1", {"Origin": "https://evil.example"}, 403, "a page of https://evil.example"),
            (None, "b1", {**jar, "Origin": "https://evil.example"}, 403, "a page of https://evil.example"),
            (alice, "b1", {"Origin": "null"}, 403, "a page of null"),
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with looking(api, token, board, **headers):
                    raise AssertionError("it was let in")
            assert refused.value.status == status, (board, headers)
            url = f"{api.base}/api/v1/boards/{board}/console"
            upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
            upgrade |= {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
            if token:
                upgrade["Authorization"] = f"Bearer {token}"
            async with api.session.get(url, headers={**upgrade, **headers}) as told:
                assert words in (await told.json())["error"]["message"]
        ours = {"Origin": api.base}
        async with looking(api, None, **ours) as nobody:
            await nobody.state(refused="anonymous is reader; typing is for users")
        async with looking(api, None, **jar) as nobody:
            await nobody.state(refused="anonymous is reader; typing is for users")
        async with looking(api, None, **jar, **ours) as mine:
            await mine.state(connected=True, refused=None)
            await mine.socket.send_str('{"take": true}')
            await mine.state(you=True)
            await mine.socket.send_bytes(b"x" * 70_000)
            async with asyncio.timeout(PATIENCE_S):
                while (end := await mine.socket.receive()).type not in {
                    aiohttp.WSMsgType.CLOSE,
                    aiohttp.WSMsgType.CLOSED,
                }:
                    pass
            assert end.data == 1009, "a paste comes in pieces"


async def test_a_token_that_is_taken_away_ends_it(tmp_path):
    file = tmp_path / "tokens.toml"
    eve, _ = token_for(file, "eve", "user"), token_for(file, "other", "user")
    async with serving(tmp_path, file) as (farm, api), Line(tmp_path) as line:
        await known_board(farm, api, eve, line)
        async with looking(api, eve) as browser:
            await browser.state(connected=True)
            text = file.read_text()
            file.write_text(text[text.index("[other]") :])
            await browser.until(lambda browser: any(message.get("over") for message in browser.told))
            assert (await browser.socket.receive()).data == 1008


async def test_a_browser_that_shows_nothing_holds_up_nobody(tmp_path, tokens):
    file, known = tokens
    async with serving(tmp_path, file) as (farm, api), Line(tmp_path) as line:
        await known_board(farm, api, known["reader"], line)
        async with looking(api, known["reader"]) as slow, looking(api, known["alice"]) as quick:
            await slow.socket.send_str('{"seen": 0}')
            await slow.state(connected=True)
            await quick.state(connected=True)
            flood, written = b"\r\n".join(b"%07d" % n for n in range(8000)), 0
            for _ in range(40):
                sent = 0
                while sent < len(flood):
                    with contextlib.suppress(BlockingIOError):
                        sent += os.write(line.board, flood[sent : sent + 4000])
                    await asyncio.sleep(0)
                written += sent
                await quick.until(lambda browser, written=written: len(browser.said) >= written)
            assert quick.said == flood * 40
            os.write(line.board, b"the end")
            await quick.says(b"the end")
            await slow.until(lambda browser: len(browser.said) == 512 * 1024)
            assert slow.said == quick.said[: 512 * 1024]
            await slow.socket.send_str(json.dumps({"seen": len(slow.said)}))
            await slow.tells("note", "bytes are not shown")
            missed = int(slow.told[-1]["note"].split()[0])

            async def rest():
                while not slow.said.endswith(b"the end"):
                    await slow.socket.send_str(json.dumps({"seen": len(slow.said)}))
                    before = len(slow.said)
                    await slow.until(lambda browser, before=before: len(browser.said) > before)

            async with asyncio.timeout(PATIENCE_S):
                await rest()
            assert len(slow.said) + missed == len(quick.said)


async def test_whatever_else_listens_there_is_typed_at_by_nobody(tmp_path, tokens, monkeypatch):
    monkeypatch.setattr("broker.web.console_session.NOT_OURS_S", 0.5)
    file, known = tokens
    got = bytearray()

    async def other(reader, writer):
        writer.write(b"SSH-2.0-something\r\n")
        while data := await reader.read(1000):
            got.extend(data)
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    async with server, serving(tmp_path, file) as (farm, api):
        port = server.sockets[0].getsockname()[1]
        said = BoardInfo(console=f"telnet://127.0.0.1:{port}")
        await farm.say(farm.topics.board_info("b1"), encode(said), retain=True)
        await api.until("/api/v1/boards/b1", known["reader"], lambda board: (board["info"] or {}).get("console"))
        async with looking(api, known["alice"]) as alice:
            await alice.tells("note", "is no boardhand agent")
            await alice.socket.send_str('{"take": true}')
            await alice.socket.send_bytes(b"secret")
            await alice.tells("refused", "is no boardhand agent")
            said = BoardInfo(console=f"telnet://{'a' * 70}:1")  # longer than any name in the DNS
            await farm.say(farm.topics.board_info("b1"), encode(said), retain=True)
            await alice.tells("note", "is no host name")
    assert b"secret" not in got
    assert alice.said == b""


async def test_one_person_has_only_so_many_open(tmp_path, tokens, monkeypatch):
    monkeypatch.setattr("broker.web.open_consoles.MOST_OF_ONE", 1)
    file, known = tokens
    async with serving(tmp_path, file) as (farm, api), Line(tmp_path) as line:
        await known_board(farm, api, known["reader"], line)
        async with looking(api, known["alice"]) as first, looking(api, known["alice"]) as second:
            await first.state(connected=True)
            await second.tells("refused", "alice has 1 consoles open: close one")
            assert (await second.socket.receive()).data == 1013
        async with looking(api, known["alice"]) as again:
            await again.state(connected=True)
