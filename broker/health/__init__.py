"""Which boards are trusted with work, and how they come to be."""
