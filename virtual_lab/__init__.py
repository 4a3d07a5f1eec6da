"""Virtual hardware that speaks the real protocols: QEMU boards, an SNMP PDU, a serial power cable, their network."""
