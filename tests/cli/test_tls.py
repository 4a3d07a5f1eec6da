"""`mqtts://` on the fast path: the server's certificate is checked, ours is shown."""

import datetime
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli.exits import Exit
from tests.cli.farm_double import boardhand, mosquitto


def certificate(folder: Path, name: str, signer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer[0].subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(alternative, critical=False)
        .sign(signer[1] if signer else key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made, key


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    authority = certificate(tmp_path, "authority", None)
    certificate(tmp_path, "server", authority)
    certificate(tmp_path, "me", authority)
    certificate(tmp_path, "stranger", None)
    extra = (
        f"user root\ncafile {tmp_path}/authority.pem\ncertfile {tmp_path}/server.pem\nkeyfile {tmp_path}/server.key\n"
        "require_certificate true\n"
    )
    with mosquitto(tmp_path / "m", extra=extra) as port:
        yield port, tmp_path


def test_trusted_server_and_own_certificate(tls_server: tuple[int, Path]) -> None:
    port, keys = tls_server
    ours = ("--client-cert", f"{keys}/me.pem", "--client-key", f"{keys}/me.key")
    url = f"mqtts://127.0.0.1:{port}"
    known = boardhand("power", "virt-1", "on", "--mqtt", url, "--ca-file", f"{keys}/authority.pem", *ours)
    assert (known.returncode, "unknown board" in known.stderr) == (Exit.NO_ANSWER, True), known.stderr
    distrusted = boardhand("power", "virt-1", "on", "--mqtt", url, "--ca-file", f"{keys}/stranger.pem", *ours)
    assert distrusted.returncode == Exit.UNREACHABLE
    assert "certificate" in distrusted.stderr.lower()
    nameless = boardhand("power", "virt-1", "on", "--mqtt", url, "--ca-file", f"{keys}/authority.pem")
    assert nameless.returncode == Exit.UNREACHABLE
    keyless = boardhand("power", "virt-1", "on", "--mqtt", url, "--client-cert", f"{keys}/authority.key")
    assert keyless.returncode == Exit.USAGE
    for done in (known, distrusted, nameless, keyless):
        assert done.stderr.count("\n") == 1
