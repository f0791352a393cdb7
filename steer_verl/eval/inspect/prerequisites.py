"""Our errors as Inspect tells them: one line instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from inspect_ai._util.error import PrerequisiteError
from rich.markup import escape

from steer_verl.errors import SteerError


@contextmanager
def prerequisites() -> Iterator[None]:
    """What is wrong with settings and files is a prerequisite that is not met.

    Raises:
        PrerequisiteError: in the place of a ``SteerError``.
    """
    try:
        yield
    except SteerError as error:
        raise PrerequisiteError(escape(str(error))) from None
