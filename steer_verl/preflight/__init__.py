"""Everything that can be known before a model is loaded: ``steer preflight``, of a yaml of GRPO or of Stage II.

verl starts Ray, loads weights and warms up an engine before it looks at a reward, a row or a tutor, and some mistakes
it never reports at all. This reads the same yaml and the same overrides, and says what is wrong, a line each, with the
hint.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from steer_verl.config import TutorConfig
from steer_verl.errors import MAX_MESSAGE, ConfigError, TutorError
from steer_verl.names import REWARD_MODEL_URL
from steer_verl.preflight.compose import compose, unresolved
from steer_verl.preflight.settings import CHECKS, notices, parsed
from steer_verl.settings_error import shown
from steer_verl.text import one_line

__all__ = ["preflight", "run"]

SECTIONS = ("actor_rollout_ref", "algorithm", "data", "reward", "trainer")
"""Of ``main_ppo``'s configuration, those that the checks look into."""
SFT_SECTIONS = ("checkpoint", "data", "engine", "model", "optim", "profiler", "trainer")
"""Of ``sft_trainer``'s."""


def preflight(config_path: str | Path, config_name: str, overrides: Sequence[str] = ()) -> list[str]:
    """Every reason why this run could not work, one line each, how to fix it included; empty when it can start.

    Args:
        config_path: folder of the recipe's yaml, as given to verl's trainer by ``--config-path``.
        config_name: name of the yaml, as given to ``--config-name``.
        overrides: the Hydra overrides appended to the run.
    """
    try:
        config = compose(config_path, config_name, overrides)
    except ConfigError as error:
        return [str(error)]
    return check(config)


def check(config: Any) -> list[str]:
    """:func:`preflight` on a composed configuration."""
    supervised = is_supervised(config)
    sections, recipe = (SFT_SECTIONS, "sft_trainer") if supervised else (SECTIONS, "main_ppo")
    if missing := [name for name in sections if not hasattr(config.get(name), "items")]:
        kept = f"give a recipe's {'sft' if supervised else 'grpo'}, and keep its sections"
        return [f"no section {', '.join(missing)}: no yaml of verl's {recipe}; {kept}"]
    if lines := list(unresolved(config)):
        return lines
    parts = (_stage_two,) if supervised else (*CHECKS, _stage_three, tutor)
    return [line for part in parts for line in _found(part, config)]


def is_supervised(config: Any) -> bool:
    """Whether it is of ``sft_trainer``, whose student has a section of its own."""
    return "model" in config and "actor_rollout_ref" not in config


def _found(part: Callable[[Any], Iterator[str]], config: Any) -> Iterator[str]:
    """What a check finds; one that breaks off costs none of the others' lines."""
    try:
        yield from part(config)
    except Exception as error:  # what a file or a model may hold is without end
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {shown(str(error))}, at {Path(where.filename).name}:{where.lineno}"
        hint = "; `steer doctor` says what is missing here" if isinstance(error, ImportError) else ""
        yield one_line(f"{part.__name__.strip('_')}: could not be checked to the end ({what}){hint}", MAX_MESSAGE)


def tutor(config: Any) -> Iterator[str]:
    """Ask the tutor, its panel and the held-out judge once each; nothing is asked when their section cannot be read,
    which is an error already."""
    settings = parsed(config)
    scores_alone = settings is not None and settings.attack == "static"

    async def ask(build: Callable[[], Any]) -> None:
        asked = build()
        try:
            await (getattr(asked, "check_scores", asked.check) if scores_alone else asked.check)()
        finally:
            await asked.close()

    for build in _asked(settings.tutor) if settings else ():
        try:
            asyncio.run(ask(build))
        except (ConfigError, TutorError) as error:
            yield str(error)


def _asked(config: TutorConfig) -> Iterator[Callable[[], Any]]:
    """How to build everyone who is asked during a run, but for a model that the run serves itself."""
    from steer_verl.tutor import build_holdout, build_judge, build_tutor

    own = config.model_copy(update={"panel": None, "holdout": None})
    parts: list[tuple[Any, Callable[[], Any]]] = [(own, partial(build_tutor, own))]
    for number, judge in enumerate(config.panel.judges if config.panel else ()):
        where = f"tutor.panel.judges[{number}]"
        parts.append((judge, partial(build_judge, judge, log=config.log, where=where)))
    if config.holdout:
        parts.append((config.holdout, partial(build_holdout, config)))
    for settings, build in parts:
        if REWARD_MODEL_URL not in settings.model_dump_json():
            yield build


def run(argv: Sequence[str]) -> int:
    """``steer preflight --config-path FOLDER --config-name NAME -- OVERRIDES``; the exit status is 1 on any error."""
    parser = argparse.ArgumentParser(prog="steer preflight", description="Check a run before a model is loaded.")
    parser.add_argument("--config-path", required=True, help="folder of the yaml, as for verl's trainer")
    parser.add_argument("--config-name", required=True, help="name of the yaml, as for verl's trainer")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, after --")
    args = parser.parse_args(list(argv))
    try:
        config = compose(args.config_path, args.config_name, args.overrides)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    errors = check(config)
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    for line in _notices(config, wrong=bool(errors)):
        print(f"notice: {line}", file=sys.stderr)
    print(
        f"preflight: {len(errors)} to mend before this can run" if errors else "preflight: all clear", file=sys.stderr
    )
    return 1 if errors else 0


def _notices(config: Any, *, wrong: bool) -> Iterator[str]:
    """What may not be as it was meant; of a run that is wrong only slips of the pen, which may be the cause."""
    from steer_verl.preflight.verl_side import misspelt

    if not wrong:
        from steer_verl.preflight.rows import shared_ids
        from steer_verl.preflight.supervised import unlike

        if is_supervised(config):
            yield from _found(unlike, config)
        else:
            yield from chain(notices(config), _found(shared_ids, config))
    yield from _found(misspelt, config)


def _stage_two(config: Any) -> Iterator[str]:
    from steer_verl.preflight.rows import folders
    from steer_verl.preflight.supervised import rows, steps, student
    from steer_verl.preflight.verl_side import verl_trains

    for part in (verl_trains, folders, steps, rows, student):
        yield from _found(part, config)


def _stage_three(config: Any) -> Iterator[str]:
    from steer_verl.preflight.rows import folders, rows
    from steer_verl.preflight.student import student
    from steer_verl.preflight.verl_side import verl_accepts

    for part in (verl_accepts, folders, rows, student):
        yield from _found(part, config)
