"""Finding what there is to switch and to read, on the network, at the MQTT server and in DNS, and writing it down."""
