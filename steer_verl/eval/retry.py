"""``steer eval retry``: a folder's own settings, once more, for what is missing in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from steer_verl.errors import ConfigError
from steer_verl.eval.config import EvalConfig, RejudgeConfig
from steer_verl.eval.rejudge import rejudge
from steer_verl.eval.run import evaluate
from steer_verl.eval.working import CONFIG, Finished, kept_settings
from steer_verl.settings_file import parse_settings, set_override


def retry_folder(
    out: Path, overrides: Sequence[str] = (), *, accept_changes: bool = False, console: Console | None = None
) -> Finished:
    """Work again whatever is missing in ``out``, a folder of ``steer eval run`` or ``rejudge``, wherever it lies now.

    Args:
        overrides: ``key=value`` that is otherwise now, such as a server's address.

    Raises:
        ConfigError: nothing was begun there, or a setting cannot work. Else as :func:`steer_verl.eval.run.evaluate`.
    """
    values = kept_settings(out)
    if not values:
        raise ConfigError(f"{out}: no {CONFIG} there; give the `out` of `steer eval run`, or start that again first")
    if isinstance(student := values.get("student"), dict):
        student.pop("trust_checkpoint", None)  # to run a checkpoint's code is consented to here, not by a folder's file
    for override in overrides:
        set_override(values, override)
    values["out"], where = str(out), str(out / CONFIG)
    if "run" in values:
        config = parse_settings(RejudgeConfig, values, where)
        return rejudge(config, accept_changes=accept_changes, retry=True, console=console)
    played = parse_settings(EvalConfig, values, where)
    return evaluate(played, accept_changes=accept_changes, retry=True, console=console)
