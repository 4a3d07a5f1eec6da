"""The MQTT server, with the daemon's own credentials: whether it can be reached, and what its access list allows.

Subscriptions are answered topic by topic (MQTT 3.1.1, section 3.9.3: 0x80 is a refusal). What may be published only a
server of MQTT 5 tells (section 3.4.2.1: 0x87), so that is asked in MQTT 5.
"""

import contextlib
import os
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from board.client import MqttConnection, MqttError
from cli.doctor.finding import Finding, unseen, well, wrong
from daemon.mqtt_discovery import DiscoveryError, Endpoint
from daemon.mqtt_settings import MqttSettings

TIMEOUT_S = 5.0
_FAILURE = 0x80
PROBE = "doctor/probe"
"""Below the prefix: no topic of the contract, so that a server lets us speak and hear there only if it has no list."""
ACL = "boardhand mqtt-acl FILES  # makes the server's access list from the settings"
Progress = Callable[[str, float], None]


def check(
    settings: MqttSettings, daemon: str, hears: Sequence[str], says: Sequence[str], progress: Progress
) -> list[Finding]:
    """Reach the server as `daemon`, subscribe to `hears`, publish an empty object on each of `says`."""
    login = f"as {settings.username}" if settings.username else "without a user name"
    subject = f"{settings.url} {login} ({daemon})"
    try:
        endpoint = settings.endpoints()[0]
        password, tls = settings.read_password(), settings.tls_context(tls=settings.endpoints()[0].tls)
    except DiscoveryError as error:
        return [wrong("mqtt", subject, str(error), "mend the SRV records, or [mqtt] url")]
    except OSError as error:
        what = f"{error.filename or 'credentials'}: {error.strerror or error}"
        return [wrong("mqtt", subject, what, "mend the file and its mode; the daemon's user has to read it")]
    name = f"bh-doctor-{os.urandom(6).hex()}"
    try:
        with _connection(endpoint, name, settings, password, tls) as link:
            found = [well("mqtt", subject, f"{endpoint.host}:{endpoint.port} takes it")]
            refused: list[str] = []
            for number, topic in enumerate(hears):
                progress("ask the MQTT server what may be heard", number / max(1, len(hears)))
                if not _hears(link, topic):
                    refused.append(topic)
            all_taken = _hears(link, f"{settings.prefix}/{PROBE}")
    except (MqttError, OSError) as error:
        return [unreachable(subject, endpoint, error)]
    probe = f"{settings.prefix}/{PROBE}"
    answers = _published(endpoint, settings, password, tls, [*says, probe])
    # A list is in force, and still it subscribes us to what no list names: then its answers to SUBSCRIBE say nothing.
    silent = all_taken and not isinstance(answers, str) and answers.get(probe, 0) >= _FAILURE
    return [*found, judge_hears(daemon, hears, refused, silent=silent), judge_says(daemon, says, answers)]


def _connection(
    endpoint: Endpoint, name: str, settings: MqttSettings, password: str | None, tls: ssl.SSLContext | None
) -> MqttConnection:
    return MqttConnection(
        endpoint.host, endpoint.port, name, username=settings.username, password=password, tls=tls, timeout_s=TIMEOUT_S
    )  # fmt: skip


def _hears(link: MqttConnection, topic: str) -> bool:
    try:
        link.subscribe(topic)
    except MqttError as error:
        if "refused to subscribe" in str(error):
            return False
        raise
    return True


def unreachable(subject: str, endpoint: Endpoint, error: Exception) -> Finding:
    """What a failed connection means."""
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return wrong("mqtt", subject, f"{endpoint.host}:{endpoint.port}: {what}", _mend(endpoint, error))


def _mend(endpoint: Endpoint, error: Exception) -> str:
    text = str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        look = f"openssl s_client -connect {endpoint.host}:{endpoint.port} </dev/null"
        mend = f"{look}  # mend [mqtt] ca_file, the host in its url, or the server's certificate"
    elif isinstance(error, ssl.SSLError | ConnectionResetError) or "closed the connection" in text:
        # What a port with TLS does to one who speaks without it or has no certificate, and one without TLS to TLS.
        wants = "wants a certificate of the daemon's, set client_cert_file; if it has no TLS, write mqtt://"
        mend = f"mend [mqtt] url: if that port {wants if endpoint.tls else 'is for TLS, write mqtts://'}"
    elif isinstance(error, ConnectionRefusedError):
        mend = "systemctl enable --now mosquitto  # or start the server that [mqtt] url names"
    elif isinstance(error, MqttError):
        mend = "mend [mqtt] username and password_file; mosquitto_passwd at the server"
    elif "answer" in text or "handshake" in text:
        mend = "systemctl restart mosquitto  # or the server that [mqtt] url names: it takes connections and is silent"
    else:
        mend = f"ping {endpoint.host}  # look at the network between"
    return mend


def judge_hears(daemon: str, topics: Sequence[str], refused: Sequence[str], *, silent: bool = False) -> Finding:
    """What it means that the server refused these subscriptions; `silent`: it would not say so."""
    subject = f"what the {daemon} hears"
    if silent and not refused:
        why = "the server takes every subscription and drops what its list forbids, as Mosquitto does with acl_file"
        return unseen("mqtt", subject, why, ACL)
    if not refused:
        return well("mqtt", subject, f"all of {len(topics)} subscriptions are allowed")
    more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
    return wrong("mqtt", subject, f"the server refuses {', '.join(refused[:3])}{more}", ACL)


def judge_says(daemon: str, topics: Sequence[str], answers: Mapping[str, int] | str) -> Finding:
    """What the server's answers to PUBLISH mean: topic -> reason code, or why there are none."""
    subject = f"what the {daemon} says"
    if isinstance(answers, str):
        return unseen("mqtt", subject, answers)
    refused = [topic for topic in topics if answers.get(topic, 0) >= _FAILURE]
    if refused:
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        return wrong("mqtt", subject, f"the server drops {', '.join(refused[:3])}{more}", ACL)
    if silent := [topic for topic in topics if topic not in answers]:
        return unseen("mqtt", subject, f"the server did not answer a message on {silent[0]}")
    return well("mqtt", subject, f"{len(topics)} topics tried, all allowed")


class _Publisher:
    """One MQTT 5 connection of paho's, and what it was answered."""

    def __init__(self, says: Sequence[str]) -> None:
        self.says = says
        self.answers: dict[str, int] = {}
        self.problem = ""
        self.over = threading.Event()
        self._topics: dict[int, str] = {}
        self._early: dict[int, int] = {}

    def connected(self, client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _more: Any) -> None:
        if code.is_failure:
            self.problem = f"the server does not speak MQTT 5, and so does not tell what it drops ({code})"
            self.over.set()
            return
        for topic in self.says:
            sent = client.publish(topic, b"{}", qos=1)
            self._topics[sent.mid] = topic
        for number, answer in self._early.items():
            self._take(number, answer)

    def published(self, _client: paho.Client, _data: Any, number: int, code: ReasonCode, _more: Properties) -> None:
        if number in self._topics:
            self._take(number, code.value)
        else:
            self._early[number] = code.value

    def _take(self, number: int, code: int) -> None:
        self.answers[self._topics[number]] = code
        if len(self.answers) == len(self.says):
            self.over.set()

    def lost(self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _more: Any) -> None:
        self.problem = self.problem or f"the connection broke: {code}"
        self.over.set()


def _published(
    endpoint: Endpoint, settings: MqttSettings, password: str | None, tls: ssl.SSLContext | None, says: Sequence[str]
) -> Mapping[str, int] | str:
    publisher = _Publisher(says)
    client = paho.Client(CallbackAPIVersion.VERSION2, f"bh-doctor-{os.urandom(6).hex()}", protocol=paho.MQTTv5)
    client.on_connect, client.on_publish, client.on_disconnect = (
        publisher.connected,
        publisher.published,
        publisher.lost,
    )
    if settings.username is not None:
        client.username_pw_set(settings.username, password)
    if tls is not None:
        client.tls_set_context(tls)
    client.connect_timeout = TIMEOUT_S
    try:
        client.connect(endpoint.host, endpoint.port)
        client.loop_start()
        publisher.over.wait(TIMEOUT_S)
    except OSError as error:
        return f"a connection in MQTT 5 failed: {error.strerror or error}"
    finally:
        client.on_disconnect = None
        with contextlib.suppress(OSError):
            client.disconnect()
        client.loop_stop()
    return publisher.answers if publisher.answers or not publisher.problem else publisher.problem
