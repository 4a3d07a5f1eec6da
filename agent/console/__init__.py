"""The boards' consoles: each port is opened once, never let go, recorded, watched for milestones, and shared.

`redactor`, `telnet`, `milestones`, `writer_place` and `recording` are cores without clock; `port`, `recorder` and
`listeners` are adapters around them; `console` and `desk` wire them.
"""
