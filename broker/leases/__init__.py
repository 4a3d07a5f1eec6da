"""Boards for people, and what a lease of a job or a person waits for."""
