"""`boardhand learn` on a farm whose cabling nobody told it: a QEMU board, light boards on two PDUs, an empty outlet."""

import pytest

from bench.learn import Size, measure


@pytest.mark.timeout(480)
def test_learn_finds_the_cabling(tmp_path):
    size = Size(qemu=1, lights=3, empty=1, at_once=2, light_boot_s=2.0, listen_s=20.0, quiet_s=15.0, seed=7)
    result = measure(size, tmp_path)
    assert result["faults"] == []
    found = result["found"]
    assert len(found["rows"]) == 4 and found["unrestored"] == [] and found["on"] == []
    assert [item["because"].startswith("nothing that goes with it was heard") for item in found["unknown"]] == [True]
    assert all(row["idle_w"] for row in found["rows"] if row["feed"][0].startswith("pdu"))
    assert all(row["boot_s"] for row in found["rows"])
