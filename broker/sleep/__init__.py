"""Which boards sleep, wake and how long that takes; the same code replays a day in virtual time."""
