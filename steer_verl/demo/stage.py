"""One step of the demo or of a laboratory of many runs: a process, what it needs and what it leaves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Typical:
    """Seconds on two cores: of each step, and (``start``) of all that is not a step."""

    start: float
    step: float = 0.0

    def total(self, steps: int) -> float:
        """The whole stage."""
        return self.start + steps * self.step


@dataclass(frozen=True)
class Stage:
    """One step, run in a process of its own."""

    name: str
    title: str
    argv: tuple[str, ...]
    folder: Path
    """Holds everything the stage writes."""
    result: Path
    """Exists when the stage is done."""
    typical: Typical
    limit: float
    """Seconds after which it is taken to hang."""
    after: tuple[str, ...] = ()
    """Names of the stages that it needs; they come before it."""
    sources: tuple[Path, ...] = ()
    """Files of our own code and settings that the result depends on."""
    steps: int = 0
    """Training steps, which the log counts; 0 if it does not."""
    checkpoint: str = ""
    """Where verl leaves the Hugging Face model of step ``{step}``, below ``folder``. The last is copied to
    ``folder/hf``, those of ``keep`` to ``folder/hf-<step>``, and then the checkpoints go."""
    keep: tuple[int, ...] = ()
    watch: tuple[str, str] = ("", "")
    """A metric of the log to show, and what to call it."""
    names_paths: bool = False
    """Its files name others by absolute paths: it is run again where the folder was moved, and nothing after it."""

    def model(self, step: int) -> Path:
        """verl's own copy of the model at a step."""
        return self.folder / self.checkpoint.format(step=step)


def hydra_text(value: str) -> str:
    """``value`` as it stands between single quotes in a Hydra override."""
    value = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", value)


def override(key: str, value: object) -> str:
    """``key='value'`` for Hydra, whatever characters a path or a name holds; numbers and words stay what they are."""
    return f"{key}='{hydra_text(str(value))}'" if isinstance(value, str | Path) else f"{key}={value}"
