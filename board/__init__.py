"""What runs on a board. Standard library only; `client.py` is one file that can be copied alone."""
