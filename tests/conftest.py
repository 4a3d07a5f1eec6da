"""What tests of several rooms need: real MQTT servers on loopback, started and ended here."""

import datetime
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, settings

from tests.free_ports import free_port

START_DEADLINE_S = 60.0

# What chance finds in our codecs and tables it finds early; `HYPOTHESIS_PROFILE=soak make test` looks for the rest.
# Tests that say their own number keep it. How long one takes says more of a build server's other guests than of us.
SLOW = [HealthCheck.too_slow]
settings.register_profile("ordinary", max_examples=50, deadline=None, suppress_health_check=SLOW)
settings.register_profile("soak", max_examples=2000, deadline=None, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordinary"))


@pytest.fixture
def unused_tcp_port() -> int:
    """In the place of pytest-asyncio's, whose ports any outgoing connection may take before the test does."""
    return free_port()


@pytest.fixture
def unused_udp_port() -> int:
    return free_port()


@dataclass
class MosquittoServer:
    """A Mosquitto that a test may stop, kill and start again on the same port with the same persistence."""

    folder: Path
    extra: str = "allow_anonymous true\n"
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "mosquitto.conf"
        # As root Mosquitto becomes its own user and could not write into the test's folder.
        user = "user root\n" if os.geteuid() == 0 else ""
        config.write_text(
            f"{user}persistence true\npersistence_location {self.folder}/\nautosave_interval 1\n"
            f"autosave_on_changes true\nset_tcp_nodelay true\nlistener {self.port} 127.0.0.1\n{self.extra}"
        )
        path = self.folder / "mosquitto.log"
        with path.open("ab") as log:
            before = path.stat().st_size
            self.process = subprocess.Popen(["mosquitto", "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"mosquitto ended: {path.read_text()}")
            # Who connects may reach another server on this port, before ours has seen that it is taken.
            if b" running\n" in path.read_bytes()[before:]:
                return
            time.sleep(0.01)
        raise RuntimeError("mosquitto does not listen")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)


@pytest.fixture
def mosquitto_server(tmp_path: Path) -> Iterator[Callable[..., MosquittoServer]]:
    """A factory of started servers; all are ended with the test."""
    servers: list[MosquittoServer] = []

    def make(**options: object) -> MosquittoServer:
        server = MosquittoServer(tmp_path / f"mosquitto-{len(servers)}", **options)  # type: ignore[arg-type]
        server.start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def mqtt(mosquitto_server: Callable[..., MosquittoServer]) -> MosquittoServer:
    """One started server that lets anybody in."""
    return mosquitto_server()


@dataclass(frozen=True)
class Certificates:
    """A throw-away authority with one certificate for a server on 127.0.0.1 and one for a client."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.datetime.now(datetime.UTC)

    def save(name: str, key: ec.EllipticCurvePrivateKey, cert: x509.Certificate) -> tuple[Path, Path]:
        cert_file, key_file = folder / f"{name}.crt", folder / f"{name}.key"
        cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert_file, key_file

    def make(name: str, issuer: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, *, ca: bool):
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca:
            import ipaddress

            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(signer, hashes.SHA256())

    authority = ec.generate_private_key(ec.SECP256R1())
    ca_file, _ = save("ca", authority, make("test authority", "test authority", authority, authority, ca=True))
    pairs = []
    for name in ("server", "dispatcher-1"):
        key = ec.generate_private_key(ec.SECP256R1())
        pairs.append(save(name, key, make(name, "test authority", key, authority, ca=False)))
    return Certificates(ca_file, *pairs[0], *pairs[1])
