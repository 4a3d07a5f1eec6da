"""What can go wrong with a flash, as a tree by what the caller does next. Every message says what to do."""


class FlashError(Exception):
    """Base of all errors of this package."""


class ImageError(FlashError):
    """The image is not there, damaged, or not for this board or tool: bring another one. Nothing was touched."""


class ImageDiskError(FlashError):
    """The image, or what is read back, cannot be read or written here: mend the disk."""


class ToolMissingError(FlashError):
    """The tool is not installed on this host, or its settings do not make sense: mend that. Nothing was touched."""


class DeviceMissingError(FlashError):
    """The tool did not find the device: look at its cable, its straps and its power."""


class ToolFailedError(FlashError):
    """The tool found the device and did not finish: the device holds a part of an image. Flash again."""


class NotVerifiedError(FlashError):
    """The tool said that all is well, and what lies in the device is not the image."""


class ModeError(FlashError):
    """An actuator could not be brought into its state."""
