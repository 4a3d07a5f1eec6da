"""What comes in over MQTT, told apart by topic. Nothing received may stop the agent: what is wrong is answered or
logged, and dropped."""

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent import boot_explain, power_desk, registration
from agent.energy_recorder import not_metering
from agent.hook_settings import HookPoint
from agent.hooks import DueHooks
from agent.registration import KnownBoard
from agent.requests import Answer, Handler, RequestError, answer, flag, text
from agent.settings import AgentSettings
from daemon.mqtt_link import Message, MqttLink
from netboot.boot_secrets import Verdict
from wire.payloads import (
    AgentState,
    BoardSelf,
    PayloadError,
    Registration,
    Response,
    decode,
    encode,
    registration_message,
)
from wire.phases import ErrorKind, Presence

if TYPE_CHECKING:
    from agent.daemon import Agent

log = logging.getLogger(__name__)

_WHY_NOT = {
    Verdict.UNKNOWN_BOARD: "it does not boot from this agent; give it a profile, or set trust_mac",
    Verdict.WRONG_MAC: "its MAC address is another's",
    Verdict.NO_SECRET: "it has fetched no boot files from this agent since its power came on; cycle its power",
    Verdict.WRONG_PROOF: "its secret is not the one that this boot was given; cycle its power",
    Verdict.OTHER_BOOT: "its secret was used by another boot; cycle its power",
}


def _known_boards(settings: AgentSettings) -> dict[str, KnownBoard]:
    return {name: KnownBoard(frozenset(board.macs), board.trust_mac) for name, board in settings.boards.items()}


class Inbox:
    """Takes the messages of one agent."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._known = _known_boards(agent.settings)
        self._handlers = {
            "announce": self._announce,
            "boot": self._boot,
            "cancel-action": agent.actions.cancel,
            "console": agent.consoles.answer,
            "energy": not_metering if agent.energy is None else agent.energy.answer,
            "learn": agent.learning.answer,
            "maintenance": self._maintenance,
            "modes": agent.modes.tell,
            "netboot": self._netboot,
            "outlets": self._outlets,
            "prepare": self._prepare,
            "read": self._read,
            "reload": agent.reloading.answer,
            **agent.joining.handlers(),
            **{verb: self._roots(verb) for verb in ("roots", "root-reset", "root-save")},
        }

    async def follow(self, settings: AgentSettings, link: MqttLink) -> None:
        """Listen to the boards of other settings from now on, on the same connection."""
        self._known = _known_boards(settings)
        await link.listen_to(self.subscriptions())

    def subscriptions(self) -> list[str]:
        """The topics this agent listens to; never its own events."""
        agent = self._agent
        topics = agent.topics
        found = [topics.register(), topics.every_agent_request(agent.name), topics.agent_state(agent.name)]
        for board in agent.settings.boards:
            found += [topics.power_set(board), topics.board_self(board), topics.lease(board)]
        return found

    def message(self, message: Message) -> None:
        """Take one message, in the event loop."""
        agent = self._agent
        topics = agent.topics
        verb = topics.parse_verb(message.topic, f"agent/{agent.name}")
        if message.topic == topics.register():
            self._registration(message)
        elif verb is not None:
            if not message.retain:
                agent.begin(self._request(verb, message.payload), f"request-{verb}")
        elif message.topic == topics.agent_state(agent.name):
            self._own_state(message.payload)
        else:
            self._about_board(message)

    def _about_board(self, message: Message) -> None:
        agent = self._agent
        parsed = agent.topics.parse_board(message.topic)
        if parsed is None or parsed.board not in agent.shelf:
            return
        if parsed.tail == "power/set":
            if message.retain:
                log.warning("board %s: a retained power command is never obeyed: clear it", parsed.board)
            else:
                agent.commands.received(parsed.board, message.payload)
            return
        try:
            if parsed.tail == "lease":
                agent.commands.leases.heard(parsed.board, message.payload)
            elif parsed.tail == "self" and message.payload:
                words = decode(BoardSelf, message.payload)
                agent.submit_if_any(agent.shelf.said(parsed.board, words, agent.moment()))
        except PayloadError as error:
            log.warning("board %s: %s: %s", parsed.board, parsed.tail, error)

    def _own_state(self, payload: bytes) -> None:
        try:
            said = decode(AgentState, payload)
        except PayloadError as error:
            log.warning("our own state topic holds something else: %s", error)
            self._agent.reassert()
            return
        # An old session's will, or another agent of our name: what stands there must be true.
        if said.session != self._agent.session or said.state is not Presence.ONLINE:
            self._agent.reassert()

    # --- registration ----------------------------------------------------------------------------------------

    def _registration(self, message: Message) -> None:
        agent = self._agent
        if message.retain:
            return
        try:
            request = decode(Registration, message.payload)
        except PayloadError as error:
            log.warning("register: %s", error)
            return
        verdict = registration.judge(request, agent.name, self._known, self._prove)
        if verdict.board is None and verdict.answer is not None:
            agent.learn_ears.registered(request)
        reply = verdict.answer
        if reply is None:
            return
        details: dict[str, object] = {"mac": request.mac, "address": request.address, "client": request.client}
        if reply.ok and verdict.board is not None:
            agent.words.heard(verdict.board, request)
            agent.names.changed()
            agent.begin(self._welcome(verdict.board, request, details, encode(reply)), f"register-{verdict.board}")
            return
        if reply.error is not None:
            log.warning("registration of %s refused: %s", request.mac, reply.error.message)
            details["reason"] = reply.error.message
        if verdict.board is not None:
            agent.submit(agent.shelf.refused(verdict.board, details))
        elif reply.error is not None:
            agent.joining.refused(request, reply.error.message)
        agent.voice.say(agent.topics.register_answer(request.mac), encode(reply))

    async def _welcome(self, board: str, request: Registration, details: dict[str, object], reply: bytes) -> None:
        """Stored first: a board that was told yes stays registered when the agent is killed right after."""
        agent = self._agent
        agent.boots.registered(board, request.boot_id)
        agent.cables.heard(board, "a registration")
        await agent.apply(agent.shelf.registered(board, request.boot_id, details))
        await agent.netboot.registered(board)
        facts = {"boot_id": request.boot_id, "mac": request.mac}
        agent.run_hooks(DueHooks(HookPoint.AFTER_REGISTRATION, board, facts))
        agent.voice.say(agent.topics.register_answer(request.mac), reply)

    def _prove(self, request: Registration, board: str) -> str | None:
        netboot = self._agent.netboot.server
        if netboot is None:
            return f"this agent gives out no boot secrets; set trust_mac in [boards.{board}] if its MAC is enough"
        message = registration_message(board, request.boot_id, request.mac)
        verdict = netboot.verify(board, request.boot_id, request.mac, request.proof or "", message)
        return None if verdict.accepted else f"no proof that this boot is board {board}: {_WHY_NOT[verdict]}"

    # --- requests --------------------------------------------------------------------------------------------

    async def _request(self, verb: str, payload: bytes) -> None:
        agent = self._agent
        response: Response | None
        if verb in agent.actions:
            response = await agent.actions.answer(verb, payload, datetime.now(UTC))
        else:
            response = await answer(verb, payload, self._handlers, datetime.now(UTC), also=agent.actions.verbs)
        if response is None:
            return
        agent.voice.say(agent.topics.agent_response(agent.name, verb), encode(response))

    def _board(self, data: dict[str, object]) -> str:
        board = text(data, "board")
        if board not in self._agent.shelf:
            raise RequestError(ErrorKind.UNKNOWN_BOARD, f"agent {self._agent.name} has no board {board}", "board")
        return board

    async def _announce(self, _data: dict[str, object]) -> Answer:
        """Publish all retained state again."""
        await self._agent.tell_info()
        self._agent.voice.again()
        return {}

    async def _boot(self, data: dict[str, object]) -> Answer:
        """What a board boots next, for once."""
        desk = self._agent.netboot.boot_files
        if desk is None:
            raise RequestError(ErrorKind.CONFIGURATION, "this agent has no [netboot] table")
        board, token = data.get("board"), data.get("token")
        if isinstance(board, str) and (token is None or type(token) is int):
            problem = power_desk.lease_problem(board, token, self._agent.commands.leases, datetime.now(UTC))
            if problem is not None:
                raise RequestError(problem.kind, problem.message, problem.key)
        root, roots = data.get("root"), self._agent.netboot.roots
        if isinstance(root, str) and not (roots is not None and await roots.has(root)):
            message = f"board {board}: this agent has no root {root}; 'boardhand root list' there names them"
            raise RequestError(ErrorKind.NOT_FOUND, message[:4096], "root")
        return await desk.choose(data)

    async def _netboot(self, data: dict[str, object]) -> Answer:
        """What a board would be served and why, and its last boots."""
        agent = self._agent
        return await boot_explain.answer(agent.settings, agent.boots.history, data, datetime.now(UTC))

    def _roots(self, verb: str) -> Handler:
        """What is asked of roots, which come up after us."""

        async def ask(data: dict[str, object]) -> Answer:
            desk = self._agent.netboot.roots
            if desk is None:
                raise RequestError(ErrorKind.CONFIGURATION, "this agent has no [roots] table")
            return await desk.handlers()[verb](data)

        return ask

    async def _outlets(self, _data: dict[str, object]) -> Answer:
        """What the controllers say of themselves and of their outlets, asked now."""
        controllers = await self._agent.power.describe()
        return {"controllers": [info.model_dump(mode="json", exclude_none=True) for info in controllers]}

    async def _prepare(self, data: dict[str, object]) -> Answer:
        """A job is about to be offered to the board: may it?"""
        board = self._board(data)
        agent = self._agent
        lease = agent.commands.leases.held(board, datetime.now(UTC))
        if lease is not None and data.get("token") != lease.token:
            message = f"board {board}: leased by {lease.holder}; send its token"
            raise RequestError(ErrorKind.NOT_ALLOWED, message, "token")
        veto = await agent.hooks.run(HookPoint.BEFORE_JOB, board, {"job": text(data, "job")})
        if veto is not None:
            raise RequestError(ErrorKind.REFUSED, f"board {board}: {veto}"[:4096])
        return {"board": board}

    async def _read(self, data: dict[str, object]) -> Answer:
        """Ask the hardware now."""
        board = self._board(data)
        power = await self._agent.power.read(board)
        return {"board": board, "power": power.value}

    async def _maintenance(self, data: dict[str, object]) -> Answer:
        board = self._board(data)
        agent = self._agent
        await agent.apply(agent.shelf.maintenance(board, on=flag(data, "on"), moment=agent.moment()))
        return {"board": board, "phase": agent.shelf.unit(board).life.phase.value}
