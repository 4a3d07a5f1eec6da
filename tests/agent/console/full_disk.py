"""Run by test_faults.py in a mount namespace: consoles whose recordings are on a disk that really is full.

full_disk.py FOLDER        FOLDER is to be a file system of 256 KiB; prints what it saw as JSON
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from agent.console import recorder
from agent.console.desk import ConsoleCalls, ConsoleDesk
from agent.console.settings import ConsolesTable, ConsoleTable
from tests.agent.console.boards import Farm, PtyBoard, Reader, until

FILLER_BYTES = 96 * 1024
PATIENCE_S = 40.0


async def main(folder):
    recorder.RETRY_S = 0.1
    filler = folder / "filler"
    filler.write_bytes(bytes(FILLER_BYTES))
    boards = {"b1": PtyBoard(), "b2": PtyBoard()}
    farm = Farm(None, folder)
    calls = ConsoleCalls(
        on_sight=farm.sights.append, on_state=lambda *_: None, on_trouble=farm.troubles.append, lease=lambda _: None
    )
    tables = {name: ConsoleTable(device=board.path) for name, board in boards.items()}
    farm.desk = ConsoleDesk(tables, ConsolesTable(keep_mb=1), folder, calls)
    await farm.desk.start()
    readers = {name: Reader() for name in boards}
    for name, reader in readers.items():
        farm.desk.consoles[name].attach(reader)
        await farm.open(name)

    said = 0
    while not farm.troubles:
        await boards["b1"].says(b"".join(b"%07d\r\n" % number for number in range(said, said + 200)))
        said += 200
        await asyncio.sleep(0.01)
        assert said < 200_000, "the disk never was full"
    free = os.statvfs(folder)
    while_full = {"troubles": list(farm.troubles), "free_bytes": free.f_bavail * free.f_bsize}
    await boards["b2"].says(b"still readable\r\n")
    await until("the other board", lambda: b"still readable\r\n" in readers["b2"].heard, PATIENCE_S)
    await until("all of the first", lambda: len(readers["b1"].heard) == said * 9, PATIENCE_S)

    filler.unlink()
    await until("the disk is well", lambda: farm.troubles[-1] is None, PATIENCE_S)
    for board in boards.values():
        await board.says(b"after\r\n")
    await until("heard", lambda: all(one.heard.endswith(b"after\r\n") for one in readers.values()), PATIENCE_S)
    lines = {name: [line[1] for line in await farm.lines(name)] for name in boards}
    await farm.desk.stop()
    for board in boards.values():
        board.close()
    json.dump({**while_full, "said": said, "all_troubles": farm.troubles, "lines": lines}, sys.stdout)


asyncio.run(main(Path(sys.argv[1])))
