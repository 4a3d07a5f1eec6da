"""Whether the clock is kept by NTP: commands expire, leases end and certificates count by it."""

import ctypes
import errno
import os

from cli.doctor.finding import Finding, unseen, well, wrong

_TIME_ERROR = 5
"""adjtimex(2): not synchronised."""
_STA_UNSYNC = 0x40
_MAX_ERROR_US = 1_000_000
MEND = "timedatectl set-ntp true  # or: apt-get install chrony"


class _Timex(ctypes.Structure):
    """The head of `struct timex` (adjtimex(2)); the rest is room for it to grow."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def check() -> Finding:
    """Ask the kernel (modes 0: it is asked alone, nothing is set)."""
    libc, state = ctypes.CDLL(None, use_errno=True), _Timex()
    result = libc.adjtimex(ctypes.byref(state))
    if result < 0:
        number = ctypes.get_errno()
        return unseen("clock", "NTP", os.strerror(number or errno.ENOSYS), MEND)
    return judge(result, state.status, state.maxerror)


def judge(result: int, status: int, max_error_us: int) -> Finding:
    """What adjtimex said: its result, and `status` and `maxerror` (microseconds) of the kernel's clock."""
    if result == _TIME_ERROR or status & _STA_UNSYNC:
        return wrong("clock", "NTP", "the clock is not synchronised", MEND)
    if max_error_us > _MAX_ERROR_US:
        return wrong(
            "clock",
            "NTP",
            f"the clock may be {max_error_us / 1e6:.1f} s off",
            "systemctl status systemd-timesyncd chrony",
        )
    return well("clock", "NTP", f"synchronised to {max_error_us / 1000:.0f} ms")
