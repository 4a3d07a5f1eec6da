"""The `boardhand` command."""
