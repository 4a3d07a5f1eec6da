"""The kinds of controllers that come with boardhand: settings, and what is said of the devices. Light to import; the
drivers themselves, and what they stand on, are imported when a controller of their kind is configured."""
