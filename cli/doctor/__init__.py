"""`boardhand doctor`: each check is a pure function over facts, with a thin collector beside it. Nothing is changed."""
