"""The gateway with real MQTT servers: Mosquitto in the clear, and with TLS."""

import asyncio
import socket
import subprocess
from contextlib import asynccontextmanager

import pytest

from daemon.mqtt_settings import MqttSettings
from tests.free_ports import free_port
from virtual_lab import gateway as gateway_module
from virtual_lab.gateway import Gateway


def listening():
    return socket.create_server(("127.0.0.1", 0))


async def until(condition, seconds=60.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.01)


async def answers(port):
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@asynccontextmanager
async def mosquitto(folder, port, lines=()):
    settings = folder / f"mosquitto-{port}.conf"
    settings.write_text("\n".join([f"listener {port} 127.0.0.1", "allow_anonymous true", *lines]) + "\n")
    log = (folder / f"mosquitto-{port}.log").open("wb")
    process = await asyncio.create_subprocess_exec("mosquitto", "-c", str(settings), stdout=log, stderr=log)
    log.close()
    try:
        async with asyncio.timeout(60):
            while not await answers(port):
                assert process.returncode is None, (folder / f"mosquitto-{port}.log").read_text()
                await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def running(settings, **options):
    listener = listening()
    port = listener.getsockname()[1]
    gateway = Gateway(settings, listener, **options)
    await gateway.start()
    try:
        yield gateway, port
    finally:
        await gateway.stop()
        assert gateway.connections == 0


async def ended(reader, seconds=60.0):
    """Whether the other side closes within the time; a reset is as good as a FIN."""
    try:
        return await asyncio.wait_for(reader.read(), seconds) == b""
    except ConnectionResetError:
        return True


async def command(*arguments):
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode()


async def round_trip(port):
    """A retained message through the gateway, and back."""
    to_server = ("-h", "127.0.0.1", "-p", str(port), "-t", "lab/x", "-q", "1")
    code, text = await command("mosquitto_pub", *to_server, "-m", "hello " * 5000, "-r")
    assert code == 0, text
    code, text = await command("mosquitto_sub", *to_server, "-C", "1", "-W", "10")
    assert (code, text) == (0, "hello " * 5000 + "\n")


async def test_messages_pass_in_the_clear(tmp_path):
    server = free_port()
    settings = MqttSettings(url=f"mqtt://127.0.0.1:{server}")
    async with (
        mosquitto(tmp_path, server),
        running(settings) as (_, port),
    ):
        await round_trip(port)


def certificates(folder):
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run(
        [*openssl, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


async def test_messages_pass_over_tls(tmp_path):
    certificate, key = certificates(tmp_path)
    server = free_port()
    lines = (f"certfile {certificate}", f"keyfile {key}", "user root")
    settings = MqttSettings(url=f"mqtts://127.0.0.1:{server}", ca_file=certificate)
    async with mosquitto(tmp_path, server, lines), running(settings) as (_, port):
        await round_trip(port)


async def test_a_server_with_a_foreign_certificate_is_not_talked_to(tmp_path, caplog):
    certificate, key = certificates(tmp_path)
    (tmp_path / "other").mkdir()
    other, _ = certificates(tmp_path / "other")
    server = free_port()
    settings = MqttSettings(url=f"mqtts://127.0.0.1:{server}", ca_file=other)
    async with (
        mosquitto(tmp_path, server, (f"certfile {certificate}", f"keyfile {key}", "user root")),
        running(settings) as (_, port),
    ):
        code, _ = await command("mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-t", "x", "-m", "y", "-q", "1")
        assert code != 0
    assert "cannot be reached from the lab" in caplog.text


async def test_a_server_that_is_away_closes_the_client_and_comes_back(tmp_path, caplog):
    server = free_port()
    async with running(MqttSettings(url=f"mqtt://127.0.0.1:{server}")) as (gateway, port):
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await ended(reader)
            writer.close()
        assert caplog.text.count("cannot be reached from the lab") == 1
        async with mosquitto(tmp_path, server) as process:
            await round_trip(port)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: gateway.connections == 1)
            process.kill()
            assert await ended(reader)
            writer.close()
        async with mosquitto(tmp_path, server):
            await round_trip(port)


@asynccontextmanager
async def plain_server(handler):
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_a_half_closed_client_still_gets_its_answer():
    async def handler(reader, writer):
        data = await reader.read()  # to the end
        writer.write(data[::-1])
        await writer.drain()
        writer.close()

    async with plain_server(handler) as server, running(MqttSettings(url=f"mqtt://127.0.0.1:{server}")) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes(range(256)) * 4000)
        writer.write_eof()
        async with asyncio.timeout(60):
            assert await reader.read() == (bytes(range(256)) * 4000)[::-1]
        writer.close()


async def test_one_more_than_the_limit_is_refused_and_the_others_stay():
    async def handler(reader, writer):
        writer.write(b"hi")
        await reader.read()
        writer.close()

    async with (
        plain_server(handler) as server,
        running(MqttSettings(url=f"mqtt://127.0.0.1:{server}"), max_connections=2) as (gateway, port),
    ):
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, _ in kept:
            assert await asyncio.wait_for(reader.readexactly(2), 60) == b"hi"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(2), 60)
        writer.close()
        assert gateway.connections == 2
        for _, kept_writer in kept:
            kept_writer.close()
        await until(lambda: gateway.connections == 0)


async def test_a_client_that_reads_nothing_holds_back_the_server_instead_of_filling_memory(monkeypatch):
    monkeypatch.setattr(gateway_module, "WRITE_TIMEOUT_S", 1.0)
    sent = 0

    async def handler(reader, writer):
        nonlocal sent
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
        except OSError:
            writer.close()

    async with (
        plain_server(handler) as server,
        running(MqttSettings(url=f"mqtt://127.0.0.1:{server}")) as (gateway, port),
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        await until(lambda: gateway.connections == 1)
        await until(lambda: gateway.connections == 0)  # given up after the write timeout
        assert sent < 64 * 1024 * 1024
        writer.close()
