"""One browser at one console: connects it to the board's agent, again and again, and lets it type where it may."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi.websockets import WebSocket, WebSocketDisconnect

from broker.web.access import Person
from broker.web.asking import Asker
from broker.web.console_recording import last_of_boot
from broker.web.console_stream import (
    Address,
    AgentStream,
    Message,
    NoConsoleError,
    Outgoing,
    address_of,
    advice,
    text_of,
)
from broker.web.farm_mirror import FarmMirror
from broker.web.guard import ApiError
from broker.web.lease_rules import may_not_type
from wire.payloads import Lease

log = logging.getLogger(__name__)

NOT_ALLOWED = 1008
"""WebSocket close code: a message violates the policy (RFC 6455 section 7.4.1)."""
CONNECT_S = 5.0
AGAIN_S = (0.5, 1.0, 2.0, 5.0)
"""Before each next try to connect; the last for ever."""
LOOK_S = 1.0
"""How soon a lease or a token that is gone ends typing."""
HEARTBEAT_S = 15.0
"""Proxies close a connection that says nothing for a minute, and a page knows by it that we are there."""
TYPED_S = 10.0
"""A port whose line takes nothing more for so long loses what was typed."""
READ_BYTES = 64 * 1024
MOST_TYPED_BYTES = 64 * 1024
"""In one message; a paste comes in many."""
NOT_OURS_S = 5.0
"""An agent answers our option within a round trip."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a session needs: the farm, a way to ask, and who its person still is.

    Attributes:
        still: the person, asked anew; raises ApiError when the token or session is gone.
    """

    mirror: FarmMirror
    asker: Asker
    still: Callable[[], Person]


class ConsoleSession:
    """One open console. `run` returns when the browser leaves or its person may look no more."""

    def __init__(self, board: str, who: Person, browser: WebSocket, around: Surroundings, *, recorded: bool) -> None:
        self._board = board
        self._who = who
        self._browser = browser
        self._around = around
        self._recorded = recorded
        self._out = Outgoing()
        self._news = asyncio.Event()
        self._stream: AgentStream | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._agent: Message = {}
        """How the agent said last that its console is."""
        self._why: str | None = None
        """Why there is no connection."""
        self._told: str | None = None
        """Why it could not type, when that was last said."""

    async def run(self) -> None:
        """Serve until the browser leaves."""
        work = [self._from_browser(), self._from_agent(), self._to_browser(), self._watch()]
        tasks = [asyncio.create_task(one, name=f"console {self._board} {n}") for n, one in enumerate(work)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with contextlib.suppress(WebSocketDisconnect):
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- to the browser ------------------------------------------------------------------------------------------

    async def _to_browser(self) -> None:
        loop = asyncio.get_running_loop()
        spoke_s = loop.time()
        while True:
            self._news.clear()
            while (item := self._out.next()) is not None:
                await (self._browser.send_bytes(item) if isinstance(item, bytes) else self._browser.send_text(item))
                spoke_s = loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, spoke_s + HEARTBEAT_S - loop.time())):
                    await self._news.wait()
            if loop.time() - spoke_s >= HEARTBEAT_S:
                await self._browser.send_text(text_of({"beat": True}))
                spoke_s = loop.time()

    def _say_state(self) -> None:
        connected = self._stream is not None
        agent = self._agent if connected else {}
        self._out.state(
            {
                "board": self._board,
                "connected": connected,
                "open": agent.get("open") is True,
                "why": agent.get("why") if connected else self._why,
                "writer": agent.get("writer"),
                "you": agent.get("you") is True,
                "readers": agent.get("readers"),
                "refused": self._may_not_type(),
            }
        )
        self._news.set()

    def _note(self, text: str) -> None:
        self._out.note(text)
        self._news.set()

    def _refuse(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._out.refuse(text)
            self._news.set()

    # --- from the browser ----------------------------------------------------------------------------------------

    async def _from_browser(self) -> None:
        while True:
            message = await self._browser.receive()
            if message["type"] != "websocket.receive":
                return
            if (data := message.get("bytes")) is not None:
                await self._type(data[:MOST_TYPED_BYTES])
            else:
                await self._asked(message.get("text") or "")

    async def _asked(self, text: str) -> None:
        try:
            asked = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(asked, dict):
            return
        seen = asked.get("seen")
        if isinstance(seen, int) and not isinstance(seen, bool):
            self._out.seen(seen)
            self._news.set()
        if asked.get("take") is True:
            self._told = None
            await self._take()
        if asked.get("give") is True:
            await self._tell_agent({"give": True, "watch": True})
        if asked.get("break") is True and self._may_send():
            await self._tell_agent({"break": True})

    def _lease(self) -> Lease | None:
        return self._around.mirror.lease(self._board)

    def _may_not_type(self) -> str | None:
        return may_not_type(self._board, self._who, self._lease(), datetime.now(UTC))

    async def _take(self) -> None:
        refused = self._may_not_type()
        if refused is not None:
            self._refuse(refused)
        elif self._stream is None:
            self._refuse(f"not typed: {self._why or 'the console is not connected'}")
        else:
            lease = self._lease()
            # Where a lease binds who types, the agent wants its token, which no browser gets to see.
            shown: Message = {} if lease is None or lease.holder != self._who.name else {"token": lease.token}
            await self._tell_agent({"take": True, **shown})

    def _may_send(self) -> bool:
        refused = self._may_not_type()
        if refused is None and self._stream is None:
            refused = f"not typed: {self._why or 'the console is not connected'}"
        if refused is None and self._agent.get("you") is not True:
            writer = self._agent.get("writer")
            refused = f"not typed: {writer} is typing" if writer else "not typed: take the keyboard first"
        if refused is not None:
            self._refuse(refused)
            return False
        self._told = None
        return True

    async def _type(self, data: bytes) -> None:
        if self._stream is not None and self._may_send():
            self._stream.typed(data)
            await self._flush()
        elif self._stream is None:
            self._may_send()

    async def _tell_agent(self, message: Message) -> None:
        if self._stream is not None:
            self._stream.say(message)
            await self._flush()

    async def _flush(self) -> None:
        if self._stream is None or self._writer is None:
            return
        self._writer.write(self._stream.take())
        try:
            async with asyncio.timeout(TYPED_S):
                await self._writer.drain()
        except TimeoutError:
            self._note("the board's line takes nothing more: some of what was typed is lost")
            self._writer.transport.abort()
        except OSError:
            return  # whoever reads the connection tells it

    # --- the agent -----------------------------------------------------------------------------------------------

    async def _from_agent(self) -> None:
        tries = 0
        was_there = False
        while True:
            try:
                reader, self._writer = await self._connected()
            except NoConsoleError as error:
                self._lost(str(error))
            else:
                try:
                    was_there, tries = await self._read(reader, again=was_there), 0
                except OSError as error:
                    self._lost(f"the connection to the console broke: {error.strerror or error}")
                except NoConsoleError as error:
                    self._lost(str(error))
                else:
                    self._lost("the agent ended the connection")
                finally:
                    self._stream = None
                    self._writer.close()
            await asyncio.sleep(AGAIN_S[min(tries, len(AGAIN_S) - 1)])
            tries += 1

    def _lost(self, why: str) -> None:
        self._stream = None
        if why != self._why:
            self._why = why
            self._out.note(f"{why}; it is tried again")
        self._out.begin(b"", "")
        self._say_state()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the console as its board's info names it now.

        Raises:
            NoConsoleError: there is none; says why.
        """
        found = self._around.mirror.board(self._board)
        if found is None:
            raise NoConsoleError(f"board {self._board}: no agent of this farm has it")
        info = found.get("info")
        told = info.get("console") if isinstance(info, dict) else None
        address = address_of(self._board, told if isinstance(told, str) else None)
        try:
            async with asyncio.timeout(CONNECT_S):
                if address.path is not None:
                    return await asyncio.open_unix_connection(address.path, limit=READ_BYTES)
                return await asyncio.open_connection(address.host, address.port, limit=READ_BYTES)
        except TimeoutError:
            raise NoConsoleError(f"the console at {address.host}:{address.port} did not answer") from None
        except UnicodeError:
            raise NoConsoleError(f"board {self._board}: {address.host[:100]!r} is no host name") from None
        except OSError as error:
            raise NoConsoleError(self._unreachable(address, found, error)) from None

    def _unreachable(self, address: Address, found: Message, error: OSError) -> str:
        agent = found.get("agent")
        if agent is not None and not found.get("agent_online"):
            return f"agent {agent} of board {self._board} is away"
        if address.path is not None:
            return (
                f"the console is served on the host of agent {agent} alone, and this broker cannot open it there "
                f"({error.strerror or error}); {advice(self._board)}"
            )
        return f"the console at {address.host}:{address.port} cannot be reached: {error.strerror or error}"

    async def _read(self, reader: asyncio.StreamReader, *, again: bool) -> bool:
        """Read until the end; True, for it was an agent's console.

        Raises:
            NoConsoleError: whoever is there is no agent of ours. It was sent nothing that anybody typed.
            OSError: the connection broke.
        """
        stream = AgentStream()
        stream.say({"name": f"{self._who.name}, on the page", "watch": True})
        early = await self._handshake(reader, stream)
        self._stream, self._why = stream, None
        if self._recorded:
            self._out.held = True  # it was let go of when there was no console to be reached
        if again:
            self._out.note("connected again; what the board said meanwhile is in its recording")
        self._say_state()
        for item in early:
            self._heard(item)
        if self._out.held:
            agent = self._around.mirror.agent_of(self._board) if self._recorded else None
            recorded = b"" if agent is None else await last_of_boot(self._around.asker, agent, self._board)
            self._recorded = False
            self._out.begin(recorded, "above: recorded of this boot; below: live")
            self._news.set()
        while data := await reader.read(READ_BYTES):
            for item in stream.feed(data):
                self._heard(item)
            await self._send(stream.take())
        return True

    async def _handshake(self, reader: asyncio.StreamReader, stream: AgentStream) -> list[bytes | Message]:
        early: list[bytes | Message] = []
        try:
            async with asyncio.timeout(NOT_OURS_S):
                while not any(isinstance(item, dict) and "you" in item for item in early):
                    await self._send(stream.take())
                    data = await reader.read(READ_BYTES)
                    if not data:
                        raise NoConsoleError(f"the console of {self._board} closed the connection")
                    early += stream.feed(data)
        except TimeoutError:
            raise NoConsoleError(f"what serves the console of {self._board} is no boardhand agent") from None
        return early

    async def _send(self, data: bytes) -> None:
        if self._writer is not None and data:
            self._writer.write(data)
            await self._writer.drain()

    def _heard(self, item: bytes | Message) -> None:
        if isinstance(item, bytes):
            self._out.board_said(item)
        elif isinstance(remark := item.get("remark"), str):
            self._out.note(remark[:1000])
        elif "you" in item:
            had = self._agent.get("you") is True
            self._agent = item
            if had and item.get("you") is not True and item.get("writer"):
                self._out.note(f"{str(item['writer'])[:100]} has taken the keyboard")
            self._say_state()
        self._news.set()

    # --- what changes meanwhile ----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """See to it that who may look no more sees no more, and who may type no more types no more."""
        told = self._may_not_type()
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self._who = self._around.still()
            except ApiError as error:
                with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                    await self._browser.send_text(text_of({"refused": error.info.message, "over": True}))
                    await self._browser.close(NOT_ALLOWED)
                return
            refused = self._may_not_type()
            # A lease may have come and gone between two looks: what counts is who has the keyboard now.
            if refused is not None and self._agent.get("you") is True:
                self._note(refused)
                await self._tell_agent({"give": True, "watch": True})
            if refused != told:
                told = refused
                self._say_state()
