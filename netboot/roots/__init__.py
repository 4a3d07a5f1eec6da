"""Roots: file systems that boards run from over NFS. Imported once and never changed; each board boots its own view."""
