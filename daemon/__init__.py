"""What every daemon of ours stands on: the settings file, the MQTT link, the SQLite store."""
