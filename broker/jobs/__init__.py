"""What a job is: its file, its life, its results. Reading and deciding; boards and power are elsewhere."""
