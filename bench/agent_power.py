"""How long the agent takes from a power command on MQTT to a verified result, and how much memory it holds.

Four boards on a virtual SNMP PDU (v2c, another process, real UDP), which switches at once. "inside" is what the agent
reports as `took_ms`: from taking the command up to the read-back that verified it. "round trip" is seen from a client
of the same MQTT server: publish, switch, verify, store, publish. Run it with `make bench`, or alone.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from board.client import MqttConnection

BOARDS = 4
ROUNDS = 50
DEADLINE_S = 30.0


class Bench:
    """Mosquitto, the virtual PDU and the agent, ended together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self.processes):
            process.terminate()
            process.wait(20)

    def start(self, *command: str, ready: str | None = None) -> tuple[subprocess.Popen[bytes], str]:
        log = (self.folder / f"{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(command, stdout=subprocess.PIPE if ready else log, stderr=log)
        self.processes.append(process)
        if ready and process.stdout:
            for line in process.stdout:
                if ready.encode() in line:
                    return process, line.decode()
            raise RuntimeError(f"{command[0]} ended early")
        return process, ""

    def mosquitto(self) -> int:
        import os
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        config = self.folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        config.write_text(f"{user}set_tcp_nodelay true\nallow_anonymous true\nlistener {port} 127.0.0.1\n")
        self.start("mosquitto", "-c", str(config))
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return port
        raise RuntimeError("mosquitto does not listen")

    def agent(self, mqtt_port: int, pdu_port: int) -> subprocess.Popen[bytes]:
        secret = self.folder / "community"
        secret.write_text("private\n")
        boards = "".join(
            f'[boards.b{n}]\nfeed = ["pdu:{n}"]\nmin_off_s = 0.0\nboot_timeout_s = 3600\n' for n in range(1, BOARDS + 1)
        )
        settings = self.folder / "agent.toml"
        settings.write_text(
            f'[agent]\nname = "bench"\nstate_dir = "{self.folder}/state"\nread_back_s = 3600\n'
            f'[mqtt]\nurl = "mqtt://127.0.0.1:{mqtt_port}"\n'
            f'[controllers.pdu]\ndriver = "snmp"\nhost = "127.0.0.1"\nport = {pdu_port}\n'
            f'community_file = "{secret}"\n{boards}'
        )
        process, _ = self.start(sys.executable, "-m", "agent", "--settings", str(settings))
        return process


def wait(client: MqttConnection, topic: str, key: str, value: object) -> dict[str, object]:
    end = time.monotonic() + DEADLINE_S
    while (left := end - time.monotonic()) > 0:
        message = client.receive(left)
        if message is None or message.topic != topic:
            continue
        payload = json.loads(message.payload)
        if payload.get(key) == value:
            return dict(payload)
    raise RuntimeError(f"nothing came on {topic}")


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


def report(name: str, values: list[float], unit: str) -> None:
    ordered = sorted(values)
    p95 = ordered[int(0.95 * (len(ordered) - 1))]
    print(
        f"{name:28} min {ordered[0]:7.2f}  median {statistics.median(ordered):7.2f}  p95 {p95:7.2f}"
        f"  max {ordered[-1]:7.2f} {unit}"
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="boardhand-bench-") as name, Bench(Path(name)) as bench:
        mqtt_port = bench.mosquitto()
        _, line = bench.start(sys.executable, "-m", "virtual_lab.snmp_pdu", "--outlets", "8", ready="port")
        pdu_port = int(json.loads(line)["port"])
        agent = bench.agent(mqtt_port, pdu_port)
        with MqttConnection("127.0.0.1", mqtt_port, "bench") as client:
            client.subscribe("boardhand/board/+/power/result", "boardhand/agent/bench/state")
            wait(client, "boardhand/agent/bench/state", "state", "online")
            inside: list[float] = []
            round_trip: list[float] = []
            for number in range(2 * ROUNDS):
                for board in range(1, BOARDS + 1):
                    command = {"power": "off" if number % 2 else "on", "id": f"{board}-{number}"}
                    begun = time.perf_counter()
                    client.publish(f"boardhand/board/b{board}/power/set", json.dumps(command).encode())
                    result = wait(client, f"boardhand/board/b{board}/power/result", "id", command["id"])
                    if not result["ok"]:
                        raise RuntimeError(f"not switched: {result}")
                    round_trip.append((time.perf_counter() - begun) * 1000)
                    inside.append(float(str(result["took_ms"])))
        report("inside the agent", inside, "ms")
        report("round trip by MQTT", round_trip, "ms")
        print(f"{'agent, 4 boards':28} {resident_mib(agent.pid):.1f} MiB resident")


if __name__ == "__main__":
    main()
