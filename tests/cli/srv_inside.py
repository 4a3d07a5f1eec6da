"""Run in namespaces of its own by test_srv.py: a DNS server on port 53, and `boardhand` with the system's resolver."""

import subprocess
import sys
from pathlib import Path

from tests.cli.farm_double import boardhand, mosquitto
from tests.netboot.knot_server import Knot

PORT = 1884


def main(folder: Path) -> None:
    resolv = folder / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\n")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "--bind", str(resolv), "/etc/resolv.conf"], check=True)
    knot = Knot(folder / "dns", {"lab.test": f"_mqtt._tcp SRV 0 0 {PORT} localhost.\n"}, port=53)
    knot.start()
    try:
        with mosquitto(folder / "mosquitto", port=PORT, extra="user root\n"):
            done = boardhand("boards", "--mqtt", "mqtt+srv://lab.test")
    finally:
        knot.stop()
    print(done.returncode, done.stderr)  # noqa: T201  # what the test reads


main(Path(sys.argv[1]))
