"""A real Knot DNS on loopback: one key that may update, one that may not, and `kdig` as the foreign reader."""

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.free_ports import free_port

DEADLINE_S = 60.0
SECRET = "c2VjcmV0IG9mIHRoZSBib2FyZHMgZm9yIHRlc3RzISE="
OTHER_SECRET = "YW5vdGhlciBzZWNyZXQgYWx0b2dldGhlciwgZm9yIHU="


class Knot:
    """`zones`: name to the lines of its file beside SOA and NS."""

    def __init__(self, folder: Path, zones: dict[str, str], port: int | None = None) -> None:
        self.folder = folder
        self.zones = zones
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "db").mkdir(parents=True, exist_ok=True)
        for zone, lines in zones.items():
            head = f"$ORIGIN {zone}.\n$TTL 60\n@ SOA ns.{zone}. admin.{zone}. 1 60 60 600 60\n@ NS ns.elsewhere.test.\n"
            (folder / f"{zone}.zone").write_text(head + lines)

    def start(self) -> None:
        entries = "".join(f"  - domain: {zone}\n    acl: [boards]\n" for zone in self.zones)
        config = self.folder / "knot.conf"
        config.write_text(
            f'server:\n    rundir: "{self.folder}"\n    listen: 127.0.0.1@{self.port}\n'
            "    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n"
            "log:\n  - target: stderr\n    any: info\n"
            f'database:\n    storage: "{self.folder}/db"\n    journal-db-max-size: 16M\n    kasp-db-max-size: 5M\n'
            "    timer-db-max-size: 1M\n    catalog-db-max-size: 5M\n"
            f"key:\n  - id: boards\n    algorithm: hmac-sha256\n    secret: {SECRET}\n"
            f"  - id: reader\n    algorithm: hmac-sha256\n    secret: {OTHER_SECRET}\n"
            "acl:\n  - id: boards\n    key: boards\n    action: [update, transfer]\n"
            f'template:\n  - id: default\n    storage: "{self.folder}"\n    file: "%s.zone"\nzone:\n{entries}'
        )
        with (self.folder / "knot.log").open("ab") as log:
            self.process = subprocess.Popen(["knotd", "-c", str(config)], stdout=log, stderr=log)
        ends = time.monotonic() + DEADLINE_S
        while time.monotonic() < ends:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)  # asked before it listens, kdig waits a whole second
                continue
            if all(self.ask(zone, "SOA") for zone in self.zones):
                return
            time.sleep(0.02)
        raise RuntimeError(f"knotd does not serve: {(self.folder / 'knot.log').read_text()}")

    def ask(self, name: str, kind: str, *, reverse: bool = False) -> list[str]:
        """What kdig reads, sorted, without a resolver between."""
        query = ["-x", name] if reverse else [f"{name}.", kind]
        command = ["kdig", "@127.0.0.1", "-p", str(self.port), "+short", "+timeout=1", "+retry=0", *query]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return sorted(line for line in done.stdout.splitlines() if line and not line.startswith(";"))

    def serial(self, zone: str) -> int:
        return int(self.ask(zone, "SOA")[0].split()[2])

    def update(self, zone: str, *lines: str) -> None:
        """Somebody else's change, by knsupdate."""
        script = [f"server 127.0.0.1 {self.port}", f"zone {zone}.", f"key hmac-sha256:boards {SECRET}", *lines, "send"]
        subprocess.run(["knsupdate"], input="\n".join(script) + "\n", text=True, check=True, capture_output=True)

    def key_file(self, name: str = "boards", secret: str = SECRET, algorithm: str = "hmac-sha256") -> Path:
        path = self.folder / f"{name}.key"
        path.write_text(f'key "{name}" {{\n\talgorithm {algorithm};\n\tsecret "{secret}";\n}};\n')
        return path

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None


class Disk:
    """Where an owner of names keeps their state: as JSON text, as the agent does."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.full = False

    async def save(self, state: dict[str, object]) -> None:
        if self.full:
            raise OSError("disk full")
        self.text = json.dumps(state)

    def load(self) -> dict[str, object] | None:
        return None if self.text is None else json.loads(self.text)
