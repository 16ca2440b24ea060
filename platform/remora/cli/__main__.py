"""``python -m remora.cli``: the command line where no console script is installed."""

import sys

from remora.cli.main import main

sys.exit(main())
