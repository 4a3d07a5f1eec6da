import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.presence.observations import UsbSeen
from agent.presence.uevents import UeventError, parse, usb_device

BOARD = (
    b"add@/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1.4\0ACTION=add\0"
    b"DEVPATH=/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1.4\0SUBSYSTEM=usb\0MAJOR=189\0MINOR=7\0"
    b"DEVNAME=bus/usb/001/008\0DEVTYPE=usb_device\0PRODUCT=525/a4a2/404\0TYPE=0/0/0\0BUSNUM=001\0DEVNUM=008\0SEQNUM=4711\0"
)


def test_a_usb_device_that_was_plugged_in() -> None:
    event = parse(BOARD)
    assert (event.action, event.name) == ("add", "1-1.4")
    assert usb_device(event) == UsbSeen("1-1.4", present=True, ids="0525:a4a2")
    gone = usb_device(parse(BOARD.replace(b"add", b"remove")))
    assert gone == UsbSeen("1-1.4", present=False, ids="0525:a4a2")


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"usb_device", b"usb_interface"), (b"=usb\0", b"=net\0"), (b"add", b"bind"), (b"add", b"change")],
)
def test_what_says_nothing_of_a_device(old: bytes, new: bytes) -> None:
    assert usb_device(parse(BOARD.replace(old, new))) is None


def test_ids_that_cannot_be_read_are_left_out() -> None:
    seen = usb_device(parse(BOARD.replace(b"525/a4a2/404", b"what")))
    assert seen == UsbSeen("1-1.4", present=True)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"libudev\0\xfe\xed\xca\xfe\0\0\0(\0\0\0",
        b"add@/devices/x",
        b"@/devices/x\0",
        b"add@devices/x\0",
        b"add@/devices/x\0ACTION=remove\0",
        b"add@/devices/x\0DEVPATH=/devices/y\0",
    ],
)
def test_what_is_no_uevent(datagram: bytes) -> None:
    with pytest.raises(UeventError):
        parse(datagram)


@given(st.binary(max_size=300))
def test_nothing_else_is_ever_raised(datagram: bytes) -> None:
    try:
        event = parse(b"add@/" + datagram)
    except UeventError:
        return
    assert event.action == "add"
    for text in (event.device, *event.properties, *event.properties.values()):
        text.encode()  # it can go out as JSON


WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0=@"), min_size=1, max_size=20)
VALUE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@given(WORD, VALUE, st.dictionaries(WORD, VALUE, max_size=8))
def test_what_the_kernel_writes_comes_out_as_it_was(action: str, device: str, more: dict[str, str]) -> None:
    properties = {**more, "ACTION": action, "DEVPATH": "/" + device}
    raw = f"{action}@/{device}\0" + "".join(f"{key}={value}\0" for key, value in properties.items())
    event = parse(raw.encode())
    assert (event.action, event.device, event.properties) == (action, "/" + device, properties)
