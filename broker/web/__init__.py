"""The HTTP API and the page: everything here is asked and said over MQTT, as any other client of the farm would."""
