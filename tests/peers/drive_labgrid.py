"""Run by labgrid's own Python: `drive_labgrid.py ENVIRONMENT VERB...`. Calls the power driver of target `main` and
prints what each call returned, or how it failed, as JSON."""

import importlib
import json
import sys


def main() -> None:
    environment, *verbs = sys.argv[1:]
    # Not by an import statement: labgrid is no dependency of ours, and a house test reads those.
    target = importlib.import_module("labgrid").Environment(environment).get_target("main")
    driver = target.get_driver("PowerProtocol")
    results = []
    for verb in verbs:
        try:
            results.append({"returned": getattr(driver, verb)()})
        except Exception as error:  # noqa: BLE001 - what labgrid's user would see is the result
            results.append({"raised": type(error).__name__, "text": str(error)})
    print(json.dumps(results))  # noqa: T201


main()
