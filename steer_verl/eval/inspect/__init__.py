"""The bridge to Inspect: runs as its logs and back, our evaluation as its task, our students as its models.

``inspect_ai`` is an extra: whoever imports from here without it is told how to get it.
"""

from importlib.util import find_spec

from steer_verl.errors import ConfigError, install_command

if find_spec("inspect_ai") is None:
    raise ConfigError(f"Inspect needs the inspect_ai package: {install_command('inspect')}")
