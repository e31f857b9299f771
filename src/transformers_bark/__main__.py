"""`python -m transformers_bark`: the command line."""

import sys

from .cli import main

sys.exit(main())
