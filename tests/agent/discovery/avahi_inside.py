"""Run in namespaces of its own (see test_mdns): avahi-daemon announces an MQTT server, and who is on its network asks.

python -m tests.agent.discovery.avahi_inside FOLDER
"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from agent.discovery.mdns import browse, servers

DEADLINE_S = 60.0
SERVICE = """<?xml version="1.0" standalone='no'?><!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group><name>Attic broker</name><service><type>_mqtt._tcp</type><port>1883</port></service></service-group>
"""


def run(*words: str) -> None:
    subprocess.run(words, check=True, timeout=60)


def look() -> int:
    """From the other end of the cables; avahi takes some seconds to be sure that its names are free."""
    ends = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends:
        answers, faults = asyncio.run(browse())
        found = servers(answers.announced())
        if found:
            sys.stdout.write(f"{found[0].url} by {found[0].by}\n")
            return 0
    sys.stderr.write(f"{faults}\n")
    return 1


def main(folder: Path) -> int:
    (folder / "services").mkdir()
    (folder / "services" / "mqtt.service").write_text(SERVICE)
    (folder / "avahi.conf").write_text("[server]\nuse-ipv6=no\nallow-interfaces=bh-a\nenable-dbus=no\n[publish]\n")
    run("mount", "-t", "tmpfs", "none", "/run")
    run("mount", "--bind", str(folder / "services"), "/etc/avahi/services")
    # It wants its folder to be its user's, and there is nobody but root in here.
    (folder / "passwd").write_text("root:x:0:0::/:/bin/sh\navahi:x:0:0::/:/bin/sh\n")
    (folder / "group").write_text("root:x:0:\navahi:x:0:\n")
    for name in ("passwd", "group"):
        run("mount", "--bind", str(folder / name), f"/etc/{name}")
    with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as other, (folder / "avahi.log").open("wb") as log:
        inside = ["nsenter", "--net", f"--target={other.pid}"]
        try:
            own = Path("/proc/self/ns/net").readlink()
            while Path(f"/proc/{other.pid}/ns/net").readlink() == own:
                time.sleep(0.01)
            run("ip", "link", "add", "bh-a", "type", "veth", "peer", "name", "bh-b", "netns", str(other.pid))
            run("ip", "address", "add", "10.91.7.1/24", "dev", "bh-a")
            run("ip", "link", "set", "bh-a", "up")
            run(*inside, "ip", "address", "add", "10.91.7.2/24", "dev", "bh-b")
            run(*inside, "ip", "link", "set", "bh-b", "up")
            avahi = ["avahi-daemon", "--no-drop-root", "--no-chroot", "--no-rlimits", "-f", str(folder / "avahi.conf")]
            with subprocess.Popen(avahi, stdout=log, stderr=log) as daemon:
                try:
                    asked = [*inside, sys.executable, "-m", "tests.agent.discovery.avahi_inside"]
                    return subprocess.run(asked, check=False, timeout=DEADLINE_S + 20).returncode
                finally:
                    daemon.terminate()
        finally:
            other.kill()
            sys.stderr.write((folder / "avahi.log").read_text(errors="replace"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) if len(sys.argv) > 1 else look())
