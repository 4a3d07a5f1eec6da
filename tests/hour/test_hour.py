"""An hour of a farm in a minute: real broker, agent, Mosquitto and boards, held against the policy and the simulator.

`make soak` runs a longer one with more boards; `bench/soak/hour.py` says what is checked.
"""

import pytest

from bench.soak.hour import whole
from bench.soak.hour_plan import Size, make

SAID_IN_S = 10.0
"""Another target's emulated machine may keep the other core busy."""


@pytest.mark.timeout(480)
def test_an_hour_keeps_the_policy_and_is_what_the_simulator_told(tmp_path):
    hour = make(Size(qemu=1, light=10, jobs=40, wall_s=70.0, booting_cap=3, light_boot_s=3.0))
    assert len(hour.jobs) >= 40
    assert whole(hour, tmp_path, said_in_s=SAID_IN_S) == []
