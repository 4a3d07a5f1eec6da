"""Watts from what meters say, without I/O."""

SHUNT_REGISTER, BUS_REGISTER = 0x01, 0x02
SHUNT_LSB_UV, BUS_LSB_MV = 10, 4
"""INA219 data sheet (TI SBOS448), tables of the shunt and the bus voltage register."""
ADC_FULL_MV, ADC_FULL = 3300, 65535
"""MicroPython scales every ADC to 16 bits; the Pico's reference is its 3.3 V."""


def ina219_watts(shunt: bytes, bus: bytes, milliohm: float) -> float:
    """Watts from the two registers, big-endian. The bus voltage stands in the upper 13 bits. A current that flows
    backwards counts as none."""
    raw = shunt[0] << 8 | shunt[1]
    shunt_uv = (raw - 0x10000 if raw & 0x8000 else raw) * SHUNT_LSB_UV
    bus_mv = ((bus[0] << 8 | bus[1]) >> 3) * BUS_LSB_MV
    return max(0.0, bus_mv / 1000 * (shunt_uv / 1000 / milliohm))


def adc_watts(raw: int, zero_mv: float, mv_per_a: float, volts: float) -> float:
    """Watts from an analogue current sensor, as an ACS712 or INA180, at a voltage that is taken as constant."""
    return max(0.0, (raw * ADC_FULL_MV / ADC_FULL - zero_mv) / mv_per_a * volts)
