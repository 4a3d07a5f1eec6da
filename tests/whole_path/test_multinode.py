"""The script part of a LAVA MultiNode test definition, unchanged, on two virtual boards."""

import json
from pathlib import Path

import pytest
import yaml

DEFINITION = yaml.safe_load((Path(__file__).parent / "multinode.yaml").read_text(encoding="utf-8"))
ENDED = ("passed", "failed", "error", "cancelled")

RUN_SERVER = """\
#!/bin/sh
mkdir -p www && echo "served by $(lava-self)" >www/file
tar -c -C www file | nc -l -p 8080 &
IP=$(lava-echo-ipv4 eth0)
echo "serving on $IP"
lava-send server-ready server-ip=$IP server-port=8080
lava-wait-all client-done client
"""
RUN_CLIENT = """\
#!/bin/sh
lava-wait server-ready
cat /tmp/lava_multi_node_cache.txt
server=$(grep server-ip /tmp/lava_multi_node_cache.txt | cut -d = -f 2)
known=$(lava-network query $(lava-group server) ipv4)
lava-test-case same-address --shell [ "$server" = "$known" ]
lava-test-set start transfer
nc $server 8080 </dev/null | tar -x
lava-test-case fetch --shell grep -q "served by $(lava-group server)" file
lava-test-case size --result pass --measurement $(wc -c <file) --units bytes
lava-test-set stop
lava-send client-done
"""


@pytest.mark.timeout(400)
def test_a_lava_multinode_definition_runs_unchanged(farm) -> None:
    shelf = farm("--boards", "2", "--idle-s", "3600")
    watcher = shelf.watch()
    job = {
        "name": DEFINITION["metadata"]["name"],
        "labels": {"arch": "arm64"},
        "timeout_s": 300,
        "files": [
            {"path": f"run-{role}.sh", "mode": "0755", "text": text}
            for role, text in (("server", RUN_SERVER), ("client", RUN_CLIENT))
        ],
        "steps": DEFINITION["run"]["steps"],
        "group": {"server": {"count": 1}, "client": {"count": 1}},
    }
    answer = shelf.request(watcher, "submit", {"yaml": json.dumps(job)})
    group, members = answer["job"], {one["role"]: one["job"] for one in answer["members"]}
    told = watcher.wait(lambda t, p: t == f"job/{group}/state" and p["state"] in ENDED)
    log = shelf.job_log(watcher, group)
    assert told["state"] == "passed", (told, log)
    assert {step["name"].split()[0] for step in told["steps"]} == {"server", "client"}

    ends = {
        role: watcher.wait(lambda t, p, one=one: t == f"job/{one}/state" and p["state"] in ENDED)
        for role, one in members.items()
    }
    assert {end["board"] for end in ends.values()} == {"virt-1", "virt-2"}
    server = ends["server"]["board"]
    cases = {role: {s["name"]: s["passed"] for s in end["steps"]} for role, end in ends.items()}
    assert cases["client"].items() >= {
        "check-server-role": True, "same-address": True, "transfer/fetch": True, "transfer/size": True,
        "lava-sync-finished": True,
    }.items()  # fmt: skip
    assert cases["server"].items() >= {"check-server-role": True, "lava-sync-finished": True}.items()
    size = next(step for step in ends["client"]["steps"] if step["name"] == "transfer/size")
    assert size["problem"] == f"measured {len(f'served by {server}') + 1} bytes"
    assert "serving on 10." in shelf.job_log(watcher, members["server"])
    assert "server-port=8080" in shelf.job_log(watcher, members["client"])
    assert "serving on 10." in log
