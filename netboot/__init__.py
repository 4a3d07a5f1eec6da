"""What a board gets over the network before it has an operating system: address, name and boot files."""
