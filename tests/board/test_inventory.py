"""What both forms of the client find in a board's sysfs and procfs. Every test here runs for both."""

from pathlib import Path

import pytest

ARM = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/cpus/cpu@0/compatible": "arm,cortex-a72\0arm,armv8\0",
    "proc/device-tree/cpus/cpu@1/compatible": "arm,cortex-a72\0",
    "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd08\n\nprocessor\t: 1\nHardware\t: BCM2835\n",
    "sys/class/net/eth0/device/vendor": "0x14e4\n",
    "sys/block/mmcblk0/size": "62333952\n",
    "sys/block/mmcblk0boot0/size": "8192\n",
    "sys/block/nvme0n1/size": "1953525168\n",
    "sys/block/loop0/size": "8192\n",
    "sys/block/sda/size": "0\n",
}
PC = {
    "sys/class/dmi/id/product_name": "To be filled by O.E.M.\n",
    "proc/cpuinfo": 'processor\t: 0\nmodel name\t: AMD G-T40E "Processor"\n\nprocessor\t: 1\nmodel name\t: AMD x\n',
    "sys/block/sda/size": "31277232\n",
    "sys/block/sdb/size": "31277232\n",
}


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (
            ARM,
            {"model": "Raspberry Pi 4 Model B Rev 1.4", "cpu": "arm,cortex-a72", "cpus": 2, "nics": 1,
             "storage_gb": 1032, "storage": "mmc,nvme"},
        ),
        (PC, {"cpu": 'AMD G-T40E "Processor"', "cpus": 2, "storage_gb": 32, "storage": "disk"}),
    ],
    ids=["arm", "pc"],
)  # fmt: skip
def test_what_a_board_is_made_of(farm, start, tmp_path: Path, files: dict[str, str], wanted: dict[str, object]):
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    start(known=False)
    assert farm.expect("register")["inventory"] == wanted
