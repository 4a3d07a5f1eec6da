"""Run by labgrid's own Python: `drive_labgrid.py ENVIRONMENT`. Talks to the console of `main` as its tests do."""

import importlib
import json
import sys


def main() -> None:
    # Not by an import statement: labgrid is no dependency of ours, and a house test reads those.
    target = importlib.import_module("labgrid").Environment(sys.argv[1]).get_target("main")
    console = target.get_driver("ConsoleProtocol")
    console.sendline("")
    console.expect("=> ", timeout=10)
    console.sendline("printenv bootcmd")
    _, before, match, _ = console.expect(r"bootcmd=(\S+)\r\n", timeout=10)
    console.expect("=> ", timeout=10)
    print(json.dumps({"bootcmd": match.group(1).decode(), "echo": before.decode("latin-1")}))  # noqa: T201


main()
