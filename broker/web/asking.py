"""Questions and orders over MQTT, each answered once: to the broker, to an agent, and power commands."""

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from daemon.mqtt_link import LinkError, MqttLink
from wire.payloads import (
    ErrorInfo,
    PayloadError,
    PowerCommand,
    PowerResult,
    Request,
    Response,
    decode,
    encode,
)
from wire.phases import ErrorKind
from wire.topics import Topics

ANSWER_S = 15.0
"""A broker restarts within this, and is asked again meanwhile."""
REPEAT_S = 3.0
POWER_S = 120.0
"""A chain of outlets with settle times takes a minute."""
Data = dict[str, object]


class AskError(Exception):
    """It was refused, or not answered. `info.kind` says what to do."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.message)
        self.info = info


def _unanswered(who: str) -> AskError:
    return AskError(ErrorInfo(kind=ErrorKind.UNREACHABLE, message=f"{who} did not answer; is it running?"))


class Asker:
    """Asks over one link. `heard` must be given every message that comes on `subscriptions`."""

    def __init__(self, link: Callable[[], MqttLink], topics: Topics) -> None:
        self._link = link
        self._topics = topics
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    def subscriptions(self) -> list[str]:
        """Where answers come."""
        prefix = self._topics.prefix
        return [
            f"{prefix}/broker/response/+",
            f"{prefix}/agent/+/response/+",
            self._topics.every_board("power/result"),
        ]

    def heard(self, topic: str, payload: bytes) -> bool:
        """Take a message; True if it was an answer to somebody."""
        if "/response/" not in topic and not topic.endswith("/power/result"):
            return False
        try:
            answer = json.loads(payload)
        except ValueError:
            return True
        tag = answer.get("transaction") or answer.get("id") if isinstance(answer, dict) else None
        future = self._waiting.get(tag) if isinstance(tag, str) else None
        if future is not None and not future.done():
            future.set_result(payload)
        return True

    async def broker(self, verb: str, data: Mapping[str, object], *, timeout_s: float = ANSWER_S) -> Data:
        """The broker's answer to `verb`.

        Raises:
            AskError: it said no, or nothing.
        """
        return await self._ask(self._topics.broker_request(verb), data, "the broker", timeout_s)

    async def agent(self, agent: str, verb: str, data: Mapping[str, object], *, timeout_s: float = ANSWER_S) -> Data:
        """An agent's answer to `verb`.

        Raises:
            AskError: it said no, or nothing.
        """
        return await self._ask(self._topics.agent_request(agent, verb), data, f"agent {agent}", timeout_s)

    async def _ask(self, topic: str, data: Mapping[str, object], who: str, timeout_s: float) -> Data:
        tag = "web-" + secrets.token_hex(8)
        payload = await self._exchange(topic, encode(Request(transaction=tag, data=dict(data))), tag, who, timeout_s)
        try:
            response = decode(Response, payload)
        except PayloadError as error:
            raise AskError(ErrorInfo(kind=ErrorKind.INTERNAL, message=f"{who}: {error}"[:4096])) from None
        if not response.ok:
            raise AskError(response.error or ErrorInfo(kind=ErrorKind.INTERNAL, message=f"{who} gave no reason"))
        return response.data

    async def power(self, board: str, command: PowerCommand, *, timeout_s: float = POWER_S) -> PowerResult:
        """Switch a board and wait for its read-back; the same command again is done once.

        Raises:
            AskError: no answer came. What became of the command is unknown, and is said in the board's state.
        """
        tag = "web-" + secrets.token_hex(8)
        expires = datetime.now(UTC) + timedelta(seconds=timeout_s)
        sent = command.model_copy(update={"id": tag, "expires": expires})
        topic = self._topics.power_set(board)
        payload = await self._exchange(topic, encode(sent), tag, f"the agent of board {board}", timeout_s)
        try:
            return decode(PowerResult, payload)
        except PayloadError as error:
            raise AskError(ErrorInfo(kind=ErrorKind.INTERNAL, message=f"board {board}: {error}"[:4096])) from None

    async def _exchange(self, topic: str, payload: bytes, tag: str, who: str, timeout_s: float) -> bytes:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[tag] = future
        try:
            async with asyncio.timeout(timeout_s):
                while not future.done():
                    try:
                        await self._link().publish(topic, payload)
                    except LinkError as error:
                        if not self._link().connected:
                            raise AskError(
                                ErrorInfo(kind=ErrorKind.UNREACHABLE, message=f"the MQTT server is away: {error}")
                            ) from None
                    # The same transaction is done once, so that it may be said again to one that restarted.
                    await asyncio.wait({future}, timeout=REPEAT_S)
                return future.result()
        except TimeoutError:
            raise _unanswered(who) from None
        finally:
            del self._waiting[tag]
