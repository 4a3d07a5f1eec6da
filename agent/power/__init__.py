"""Power that tells the truth: the switching core, one queue per controller, the journal, the drivers."""
