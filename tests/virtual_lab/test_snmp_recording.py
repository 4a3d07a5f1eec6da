"""Recordings of real devices played on the wire and walked by net-snmp: what comes out is what the file holds."""

import asyncio
import re
from pathlib import Path

import pytest

from virtual_lab.snmp_pdu_engine import V3User
from virtual_lab.snmp_pdu_model import Counter32, Counter64, Gauge, IpAddress, Opaque, TimeTicks
from virtual_lab.snmp_recording import RecordedDevice, RecordingError, read_recording

RECORDINGS = sorted((Path(__file__).parents[3] / "shared" / "recordings").glob("*.snmprec"))
USER = V3User("simu", "sha", "authpass123", "aes", "privpass123")
V3 = ("-v3", "-l", "authPriv", "-u", "simu", "-a", "SHA", "-A", "authpass123", "-x", "AES", "-X", "privpass123")
V2C = ("-v2c", "-c", "public")

TINY = """\
# a comment
1.3.6.1.2.1.1.2.0|6|1.3.6.1.4.1.318.1.3.4.6
1.3.6.1.2.1.1.1.0|4|APC | with a bar
1.3.6.1.2.1.1.3.0|67|12345

1.3.6.1.4.1.318.1.10|2|-7
1.3.6.1.4.1.318.1.9|2|4294967295
1.3.6.1.4.1.318.2.1|4x|00ff0a
1.3.6.1.4.1.318.2.2|64|192.0.2.1
1.3.6.1.4.1.318.2.3|64x|c0000202
1.3.6.1.4.1.318.2.4|65|4294967295
1.3.6.1.4.1.318.2.5|66|40
1.3.6.1.4.1.318.2.6|70|18446744073709551615
1.3.6.1.4.1.318.2.7|4|
1.3.6.1.4.1.318.2.8|2:writecache|value=2
1.3.6.1.4.1.318.2.9|4:writecache|value=IBM Server 1 PS1
1.3.6.1.4.1.318.2.10|2:numeric|min=1,max=2,wrap=1,initial=2
1.3.6.1.4.1.318.2.11|65:numeric|min=1,max=2
1.3.6.1.4.1.318.2.12|68x|9f780442f60000
1.3.6.1.4.1.318.2.13|5|
"""
SEEN = """\
.1.3.6.1.2.1.1.1.0 = STRING: "APC | with a bar"
.1.3.6.1.2.1.1.2.0 = OID: .1.3.6.1.4.1.318.1.3.4.6
.1.3.6.1.2.1.1.3.0 = Timeticks: (12345) 0:02:03.45
.1.3.6.1.4.1.318.1.9 = INTEGER: -1
.1.3.6.1.4.1.318.1.10 = INTEGER: -7
.1.3.6.1.4.1.318.2.1 = Hex-STRING: 00 FF 0A
.1.3.6.1.4.1.318.2.2 = IpAddress: 192.0.2.1
.1.3.6.1.4.1.318.2.3 = IpAddress: 192.0.2.2
.1.3.6.1.4.1.318.2.4 = Counter32: 4294967295
.1.3.6.1.4.1.318.2.5 = Gauge32: 40
.1.3.6.1.4.1.318.2.6 = Counter64: 18446744073709551615
.1.3.6.1.4.1.318.2.7 = ""
.1.3.6.1.4.1.318.2.8 = INTEGER: 2
.1.3.6.1.4.1.318.2.9 = STRING: "IBM Server 1 PS1"
.1.3.6.1.4.1.318.2.10 = INTEGER: 2
.1.3.6.1.4.1.318.2.11 = Counter32: 0
.1.3.6.1.4.1.318.2.12 = Opaque: Float: 123.000000
.1.3.6.1.4.1.318.2.13 = ""
""".splitlines()


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.snmprec"
    path.write_text(TINY)
    return path


async def tool(program, device, *words, credentials=V2C):
    """Run a tool of net-snmp; returns (exit code, what it said)."""
    process = await asyncio.create_subprocess_exec(
        program, "-t", "5", "-r", "1", "-On", *credentials, f"127.0.0.1:{device.port}", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode, said.decode("latin-1")


def rows(said):
    return [line.rstrip() for line in said.splitlines() if "No more variables" not in line]


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize(
    ("program", "credentials"), [("snmpwalk", V2C), ("snmpbulkwalk", V2C), ("snmpwalk", V3), ("snmpbulkwalk", V3)]
)
async def test_a_walk_sees_every_type_in_order_of_numbers(tiny, program, credentials, light):
    async with RecordedDevice(tiny, users=(USER,), light=light) as device:
        _, said = await tool(program, device, ".1.3", credentials=credentials)
    assert rows(said) == SEEN


@pytest.mark.parametrize("light", [False, True])
async def test_version_1_sees_all_but_counter64(tiny, light):
    async with RecordedDevice(tiny, light=light) as device:
        _, said = await tool("snmpwalk", device, ".1.3", credentials=("-v1", "-c", "public"))
    assert [row for row in rows(said) if row.startswith(".")] == [row for row in SEEN if "Counter64" not in row]


async def test_a_recording_cannot_be_written(tiny):
    async with RecordedDevice(tiny) as device:
        for oid, reason in ((".1.3.6.1.4.1.318.2.8", "notWritable"), (".1.3.6.1.4.1.318.2.99", "noCreation")):
            code, said = await tool("snmpset", device, oid, "i", "1")
            assert code != 0
            assert reason in said
        assert device.tables.sets == [((1, 3, 6, 1, 4, 1, 318, 2, number), 1) for number in (8, 99)]
        device.deaf = True
        code, _ = await tool("snmpget", device, ".1.3.6.1.2.1.1.1.0", credentials=(*V2C, "-t", "0.1", "-r", "0"))
        assert code != 0


def test_types_are_kept(tiny):
    types = {type(value) for value in read_recording(tiny).values()}
    assert types == {int, bytes, tuple, Counter32, Counter64, Gauge, TimeTicks, IpAddress, Opaque}


@pytest.mark.parametrize(
    "line", ["1.3.6|2", "1.3.x|2|1", "1.3.6|99|1", "1.3.6|2|one", "1.3.6|4x|f", "1.3.6|64|300.1.1.1", "1.3.6|64x|0a"]
)
def test_a_line_that_is_none_is_named(tmp_path, line):
    path = tmp_path / "bad.snmprec"
    path.write_text(f"1.3.6.1|2|1\n{line}\n")
    with pytest.raises(RecordingError, match=r"bad\.snmprec:2"):
        read_recording(path)


AS_PRINTED = {
    "2": lambda text: f"INTEGER: {text}",
    "4": lambda text: f"Hex-STRING: {text.encode('latin-1').hex(' ').upper()}" if text else '""',
    "4x": lambda text: f"Hex-STRING: {bytes.fromhex(text).hex(' ').upper()}" if text else '""',
    "6": lambda text: f"OID: .{text.strip('.')}",
    "64": lambda text: f"IpAddress: {text}",
    "64x": lambda text: "IpAddress: " + ".".join(str(octet) for octet in bytes.fromhex(text)),
    "65": lambda text: f"Counter32: {text}",
    "66": lambda text: f"Gauge32: {text}",
    "67": lambda text: f"Timeticks: ({text})",
    "70": lambda text: f"Counter64: {text}",
}


def expected(path):
    """OID and value, with its tag, of each line of a file, read by other means than `read_recording`."""
    found = {}
    for line in path.read_bytes().decode("latin-1").split("\n"):
        if not line or line.startswith("#"):
            continue
        name, tag, text = line.split("|", 2)
        if ":" in tag:
            text = re.search(r"(?:value|initial)=([^,]*)", text)[1]
        found["." + name] = (tag.split(":")[0], text)
    return found


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
async def test_recordings_of_real_devices_come_out_as_they_are(path):
    wanted = expected(path)
    async with RecordedDevice(path, light=True) as light, RecordedDevice(path) as reference:
        walks = [
            (await tool("snmpbulkwalk", device, ".1", credentials=(*V2C, "-Ox")))[1] for device in (light, reference)
        ]
    assert rows(walks[0]) == rows(walks[1])
    joined = re.sub(r"\n(?!\.)", " ", "\n".join(rows(walks[0])))  # long strings go over several lines
    seen = dict(re.findall(r"^(\.[\d.]+) = (.*)$", joined, re.MULTILINE))
    assert list(seen) == sorted(wanted, key=lambda oid: [int(part) for part in oid.split(".")[1:]])
    for oid, (tag, text) in wanted.items():
        assert AS_PRINTED[tag](text) in seen[oid], oid
