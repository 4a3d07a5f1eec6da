"""The daemon of a dispatcher host: power, netboot, presence, and what it says of its boards over MQTT."""
