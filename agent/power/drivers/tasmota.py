"""Tasmota devices over MQTT. What is an answer to what stands in `tasmota_words`; the connection in `plug_link`."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.plug_link import Listener, NoConnectionError, PlugLink
from agent.power.drivers.tasmota_words import (
    Conversation,
    End,
    Question,
    Subject,
    Topics,
    firmware_in,
    relay_power,
    relay_words,
    relays_in,
    watts_in,
)
from agent.power.errors import AuthenticationError, ConfigurationError, PowerError, UnreachableError
from agent.power.kinds.tasmota import TasmotaSettings
from daemon.mqtt_link import LinkError, Message, PublishRefusedError
from daemon.mqtt_settings import MqttSettings
from wire.phases import Power

STEPS = 3
"""A call may have to connect, to ask which relays there are, and to ask what it is about."""
CALL_MARGIN_S = 1.0
TIMING = Timing(
    verify_deadline_s=5.0,  # Wi-Fi in power saving
    poll_interval_s=0.1,
    settle_s=1.0,
    min_off_s=2.0,
    attempts=3,
)


class TasmotaDriver:
    """One device."""

    def __init__(self, name: str, settings: TasmotaSettings, server: PlugLink | None) -> None:
        self._name = name
        self._settings = settings
        self._server = server
        self._talk = Conversation(Topics(settings.topic, settings.full_topic))
        self._waiting: dict[Question, asyncio.Future[None]] = {}
        self._timing = replace(TIMING, call_timeout_s=settings.timeout_s * STEPS + CALL_MARGIN_S)
        self._listener = Listener(tuple(self._talk.topics.subscriptions), self._heard, self._lost)
        if server is not None:
            server.listen(self._listener)

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def reads_back(self) -> bool:
        return True

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        """Returns when the device answered; what it says then is left to the read-back."""
        await self._check(outlet)
        await self._ask(f"POWER{outlet}", b"ON" if on else b"OFF", relay_words(outlet), outlet)

    async def get(self, outlet: str) -> Power:
        await self._check(outlet)
        payload = await self._ask(f"POWER{outlet}", b"", relay_words(outlet), outlet)
        power = relay_power(payload)
        if power is None:
            raise ConfigurationError(
                f"says {payload.decode(errors='replace')[:40]!r} for its state",
                controller=self._name,
                outlet=outlet,
                do="set the device's StateText1 to OFF and StateText2 to ON",
            )
        return power

    async def read(self, outlet: str) -> float | None:
        await self._check(outlet)
        payload = await self._ask_about(Subject.SENSORS, outlet)
        try:
            return watts_in(payload, outlet, len(self._talk.relays or ()))
        except ValueError as problem:
            raise self._wrong(Subject.SENSORS, problem, outlet) from problem

    async def get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        relays = await self._relays()
        return {outlet: relays[outlet] if outlet in relays else self._no_such(outlet) for outlet in outlets}

    async def read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        relays = self._talk.relays or tuple(await self._relays())
        payload = await self._ask_about(Subject.SENSORS, None)
        try:
            # A relay that it has not is named by `get_many`; here it must not cost the others their watts.
            return {o: watts_in(payload, o, len(relays)) if o in relays else None for o in outlets}
        except ValueError as problem:
            raise self._wrong(Subject.SENSORS, problem, None) from problem

    async def describe(self) -> list[OutletDescription]:
        return [OutletDescription(outlet, power=power) for outlet, power in (await self._relays()).items()]

    async def identify(self) -> str:
        payload = await self._ask_about(Subject.FIRMWARE, None)
        try:
            return f"tasmota {firmware_in(payload)}, by its STATUS2"
        except ValueError as problem:
            raise self._wrong(Subject.FIRMWARE, problem, None) from problem

    async def close(self) -> None:
        """The connection is shared, and goes with the last driver that uses it."""
        self._lost()
        if self._server is not None:
            await self._server.leave(self._listener)

    # --- asking --------------------------------------------------------------------------------------------------

    async def _check(self, outlet: str) -> None:
        """The device is silent about a relay that it has not: so it is asked once which it has."""
        if self._talk.relays is None or outlet not in self._talk.relays:
            await self._relays()
        if outlet not in (self._talk.relays or ()):
            raise self._no_such(outlet)

    async def _relays(self) -> dict[str, Power]:
        payload = await self._ask_about(Subject.RELAYS, None)
        try:
            relays = relays_in(payload)
        except ValueError as problem:
            raise self._wrong(Subject.RELAYS, problem, None) from problem
        self._talk.relays = tuple(relays)
        return relays

    async def _ask_about(self, subject: Subject, outlet: str | None) -> bytes:
        command, payload, answer = subject.value
        return await self._ask(command, payload, (answer,), outlet)

    async def _ask(self, command: str, payload: bytes, words: Sequence[str], outlet: str | None) -> bytes:
        server = self._server
        if server is None:
            raise ConfigurationError("no MQTT server is set", controller=self._name, do="give it an mqtt table")
        timeout_s = self._settings.timeout_s
        question = None
        try:
            link = await server.ready(timeout_s)
            question = self._talk.ask(*words)
            if question.end is None:
                self._waiting[question] = asyncio.get_running_loop().create_future()
                async with asyncio.timeout(timeout_s):
                    await link.publish(self._talk.topics.base("cmnd") + command, payload, timeout_s=timeout_s)
                    await self._waiting[question]
        except NoConnectionError as problem:
            raise self._no_server(problem, server.settings, outlet) from problem
        except PublishRefusedError as problem:
            raise ConfigurationError(str(problem), controller=self._name, outlet=outlet, do="allow cmnd/#") from problem
        except LinkError as problem:
            raise UnreachableError(str(problem), controller=self._name, outlet=outlet) from problem
        except TimeoutError:
            raise self._silence(command, outlet) from None
        finally:
            if question is not None:
                self._talk.forget(question)
                self._waiting.pop(question, None)
        if question.end is End.ANSWERED:
            return question.payload
        raise self._gone(question.end, outlet)

    # --- hearing -------------------------------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        self._end(self._talk.heard(message.topic, message.payload, retained=message.retain))

    def _lost(self) -> None:
        self._end(self._talk.disconnected())

    def _end(self, questions: Sequence[Question]) -> None:
        for question in questions:
            waiting = self._waiting.get(question)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    # --- errors --------------------------------------------------------------------------------------------------

    def _no_such(self, outlet: str) -> ConfigurationError:
        has = ", ".join(self._talk.relays or ()) or "none"
        return ConfigurationError(
            f"has no such relay; it has {has}", controller=self._name, outlet=outlet, do="correct the feed"
        )

    def _wrong(self, subject: Subject, problem: ValueError, outlet: str | None) -> ConfigurationError:
        return ConfigurationError(
            f"its {subject.value[2]} is not Tasmota's: {problem}", controller=self._name, outlet=outlet,
            do="check topic; something else may answer there",
        )  # fmt: skip

    def _no_server(self, problem: NoConnectionError, server: MqttSettings, outlet: str | None) -> PowerError:
        kind = AuthenticationError if problem.refused else UnreachableError
        do = "correct its username and password_file" if problem.refused else "check url and the server"
        return kind(
            f"no connection to the MQTT server {server.url}: {problem}", controller=self._name, outlet=outlet, do=do
        )

    def _gone(self, end: End | None, outlet: str | None) -> UnreachableError:
        if end is End.OFFLINE:
            problem, do = "is offline, as its will on the MQTT server says", "check its power and its Wi-Fi"
        else:
            problem, do = "the connection to the MQTT server was lost before it answered", "check the server"
        return UnreachableError(problem, controller=self._name, outlet=outlet, do=do)

    def _silence(self, command: str, outlet: str | None) -> UnreachableError:
        topics = self._talk.topics
        if self._talk.online is None:
            do = f"check topic and full_topic: nothing was ever heard on {topics.lwt}"
        else:
            do = "check its power and its Wi-Fi"
        return UnreachableError(
            f"did not answer {topics.base('cmnd')}{command} within {self._settings.timeout_s:g} s",
            controller=self._name,
            outlet=outlet,
            do=do,
        )


def make(name: str, settings: TasmotaSettings, context: DriverContext) -> TasmotaDriver:
    """The driver of one device; the connection is shared by all on the same MQTT server."""
    server = settings.mqtt or context.mqtt
    if server is None:
        return TasmotaDriver(name, settings, None)
    return TasmotaDriver(name, settings, context.share((PlugLink, server), lambda: PlugLink(server)))
