"""What the parent tells the worker at its start."""


class WorkerSettings:
    """What the parent's `config` says. Unknown keys are ignored; a missing one takes the default here."""

    def __init__(self, line: dict[str, object]) -> None:
        found = line.get("config")
        config = found if isinstance(found, dict) else {}

        def number(key: str, default: int) -> int:
            value = config.get(key, default)
            return value if isinstance(value, int) else default

        interface = config.get("interface")
        self.interface = interface if isinstance(interface, str) and interface else None
        self.address = str(config.get("address", "0.0.0.0"))
        address6 = config.get("address6")
        self.address6 = address6 if isinstance(address6, str) and address6 else None
        self.port = number("port", 69)
        self.shared_port = config.get("shared_port") is True
        self.claim_port = config.get("claim_port") is True
        self.cache_bytes = number("cache_bytes", 128 << 20)
        self.requests_per_s = number("requests_per_s", 100)
        self.mtu_bytes = number("mtu_bytes", 1500)
        self.max_window = number("max_window", 16)
        self.max_transfers = number("max_transfers", 256)
        self.max_per_client = number("max_per_client", 8)
        self.pump = str(config.get("pump", "auto"))
        first = line.get("first", 1)
        self.first_number = first if isinstance(first, int) else 1
