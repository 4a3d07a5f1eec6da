"""`python -m cli` is `boardhand`."""

import sys

from cli.main import main

sys.exit(main())
