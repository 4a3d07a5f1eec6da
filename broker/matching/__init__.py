"""Which job gets which board, and why the others wait."""
