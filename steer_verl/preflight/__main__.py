"""``python -m steer_verl.preflight``: the same as ``steer preflight``, where no command is on the path."""

import sys

from steer_verl.preflight import run

sys.exit(run(sys.argv[1:]))
