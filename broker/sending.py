"""Messages on their way to the MQTT server."""

import asyncio
import logging
from collections.abc import Sequence

from broker.outbox import Outgoing
from daemon.mqtt_link import LinkError, MqttLink, PublishRefusedError

log = logging.getLogger(__name__)


async def send(link: MqttLink, outgoing: Sequence[Outgoing]) -> None:
    """Hand all messages to the server in their order, then wait for its acknowledgements together."""
    if not outgoing or not link.connected:
        # Nothing is lost: leases and offers are said again when settled, the rest is asked for again.
        return
    sent = [asyncio.create_task(_publish(link, message), name="broker-publish") for message in outgoing]
    await asyncio.gather(*sent)


async def _publish(link: MqttLink, message: Outgoing) -> None:
    try:
        await link.publish(message.topic, message.payload, retain=message.retain)
    except PublishRefusedError as error:
        log.error("%s: %s", message.topic, error)  # noqa: TRY400  # a traceback says nothing more here
    except LinkError as error:
        log.info("not sent, the connection went away: %s", error)
