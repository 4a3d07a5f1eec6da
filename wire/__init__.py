"""The public contract as code: topics, payload models, phases. No I/O and no clock live here.

`CONTRACT_VERSION` rises in its first number when a script written against the old contract would break.
"""

CONTRACT_VERSION = "1.2"
