"""``python -m steer_verl.preflight``: the same as ``steer preflight``, where no command is on the path."""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback, and with it the script that asked

from steer_verl.preflight import run  # noqa: E402

sys.exit(run(sys.argv[1:]))
