"""Two groups of jobs, and how a farm on paper brings one up and calls for it."""

from broker import happenings as h
from broker.groups.multinode_payloads import WorkCall
from broker.ledger import Policy

GROUP = """\
name: pair
env: {A: all}
group:
  server: {env: {B: mine}, steps: [serve]}
  client: {count: 2, steps: [{name: ask, run: lava-wait ready}]}
"""
PAIR = "name: pair\ngroup: {server: {steps: [serve]}, client: {steps: [ask]}}\n"


def call(world, board, text, name="c1"):
    job, token = world.boards[board].work
    actions = world.tell(h.Called(board, WorkCall(job=job, token=token, call=name, text=text)))
    return [(a.board, a.call, a.ok, a.text) for a in actions if isinstance(a, h.SendAnswer)]


def all_up(world, names):
    for power in list(world.powers):
        world.obey_power(power)
    for name in names:
        world.up(name)


def started(make_world, yaml=PAIR, boards=("b1", "b2"), **policy):
    world = make_world(Policy(booting_cap=9, **policy), boards=boards)
    job = world.submit(yaml)
    all_up(world, boards)
    for name in boards:
        world.accept(name)
    return world, job


# --- the file
