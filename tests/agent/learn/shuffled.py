"""The farm of the issue, its cabling shuffled by a seed."""

import random
from dataclasses import dataclass

from agent.learn.experiment import Experiment
from agent.learn.findings import Findings
from agent.learn.places import Rules
from agent.learn.signs import Kind, Subject
from tests.agent.learn.simulated_farm import SimBoard, SimFarm

RULES = Rules(at_once=4, listen_s=240.0)


def mac(number: int) -> Subject:
    return Subject(Kind.MAC, f"02:00:00:00:00:{number:02x}")


def console(number: int) -> Subject:
    return Subject(Kind.CONSOLE, f"/dev/ttyUSB{number}")


def usb(number: int) -> Subject:
    return Subject(Kind.USB, f"1-1.{number}")


@dataclass
class Shuffled:
    farm: SimFarm
    outlets: dict[str, bool]
    boards: list[SimBoard]

    def experiment(self, rules: Rules = RULES) -> Experiment:
        return Experiment(self.outlets.items(), rules, self.farm.now)


def ordinary(number: int, outlet: str, chance: random.Random) -> SimBoard:
    """Speaks on its console, asks for an address, registers, and chatters now and then."""
    boot_s = chance.uniform(8, 40)
    return SimBoard(
        f"board-{number}",
        [outlet],
        says={console(number): chance.uniform(0.1, 2), mac(number): chance.uniform(1, boot_s * 0.5)},
        shows={usb(number): chance.uniform(0.2, 3)} if number % 4 == 0 else {},
        ready=(mac(number), boot_s),
        links=[(mac(number), console(number))] if number % 3 else [],
        chatter_s=chance.choice([0.0, 5.0, 30.0]),
        watts=chance.uniform(2, 9),
    )


def shuffled(seed: int) -> Shuffled:
    """16 boards on 20 outlets of three controllers; 3 of the outlets are empty, and some are on."""
    chance = random.Random(seed)
    sizes = {"pdu-a": 8, "pdu-b": 8, "hub": 4}
    names = [f"{controller}:{n}" for controller, size in sizes.items() for n in range(1, size + 1)]
    free = chance.sample(names, len(names))
    boards = [ordinary(number, free.pop(), chance) for number in range(1, 12)]
    for number in (12, 13):  # no client: nothing says that they are up
        board = ordinary(number, free.pop(), chance)
        board.ready = None
        boards.append(board)
    boards.append(SimBoard("silent", [free.pop()], watts=4.0))
    double = ordinary(14, free.pop(), chance)
    double.name = "double"
    double.fed_by.append(free.pop())
    boards.append(double)
    slow = ordinary(15, free.pop(), chance)  # three minutes until its first word
    slow.name = "slow"
    slow.says = {console(15): 180.0, mac(15): 182.0}
    slow.ready = None
    boards.append(slow)
    outlets = {name: chance.random() < 0.3 for name in names}
    farm = SimFarm(outlets, boards, seed)
    farm.noise = [
        (mac(0xF0), 4.0),  # a phone in the same network
        (mac(0xF1), 60.0),
        (mac(0xF2), 600.0),
        (console(90), 7.0),  # a console that nobody has switched
        (console(91), 300.0),
        (Subject(Kind.USB, "3-1"), 900.0),
    ]
    return Shuffled(farm, outlets, boards)


def wrong_rows(given: Shuffled, found: Findings) -> list[str]:
    """Rows that say what is not so."""
    wrong = []
    for row in found.rows:
        subjects = {
            *(Subject(Kind.CONSOLE, name) for name in row.consoles),
            *(Subject(Kind.MAC, name) for name in row.macs),
            *(Subject(Kind.USB, name) for name in row.usb),
        }
        owners = [
            board
            for board in given.boards
            if set(board.fed_by) == set(row.feed) and subjects <= {*board.says, *board.shows}
        ]
        if len(owners) != 1 or not subjects:
            wrong.append(f"{row.feed}: {sorted(map(str, subjects))}")
    return wrong
