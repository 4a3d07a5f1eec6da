"""Serial ports as sysfs shows them, and udev rules that give them names which stay."""
