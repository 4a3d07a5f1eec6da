"""Messages on their way to the MQTT server."""

import asyncio
import logging
from collections.abc import Sequence

from broker.outbox import Outgoing
from daemon.mqtt_link import ACK_TIMEOUT_S, LinkError, MqttLink, NotConnectedError, PublishRefusedError

log = logging.getLogger(__name__)

_Acks = dict[asyncio.Future[None], str]
"""What is waited for, and its topic."""


class Sender:
    """Hands messages to the server in their order. What it has not acknowledged of one batch is waited for before the
    next one: meanwhile the next may be decided, and never more than one is on its way."""

    def __init__(self) -> None:
        self._acks: _Acks = {}

    async def send(self, link: MqttLink, outgoing: Sequence[Outgoing]) -> None:
        """Wait for the acknowledgements of the batch before this one, then hand over this one."""
        if not outgoing:
            return
        await self.acknowledged()
        if not link.connected:
            # Nothing is lost: leases and offers are said again when settled, the rest is asked for again.
            return
        for message in outgoing:
            try:
                self._acks[link.hand_over(message.topic, message.payload, retain=message.retain)] = message.topic
            except NotConnectedError as error:
                log.info("not sent, the connection went away: %s", error)

    async def acknowledged(self) -> None:
        """Wait until the server has acknowledged, or refused, what was handed over last; what went wrong is logged."""
        acks, self._acks = self._acks, {}
        if any(not ack.done() for ack in acks):
            await asyncio.wait(acks, timeout=ACK_TIMEOUT_S)
        for ack, topic in acks.items():
            if not ack.done():
                log.info("not sent, the connection went away: %s: no acknowledgement in %g s", topic, ACK_TIMEOUT_S)
                ack.cancel()
            elif not ack.cancelled() and (error := ack.exception()) is not None:
                _tell(topic, error)


def _tell(topic: str, error: BaseException) -> None:
    match error:
        case PublishRefusedError():
            log.error("%s: %s", topic, error)
        case LinkError():
            log.info("not sent, the connection went away: %s", error)
        case _:
            raise error
