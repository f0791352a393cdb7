"""Errors that a user can act on. Each message is one line: what is wrong, where, and the cure."""


class SteerError(Exception):
    """Base of every error raised on purpose by this project."""


class ConfigError(SteerError):
    """A setting that cannot work."""


class DataError(SteerError):
    """A row that cannot be trained on."""


class TutorError(SteerError):
    """A tutor that cannot be used at all (unreachable, wrong model): found before any model is loaded."""


class StudentError(SteerError):
    """A student that cannot be asked: unreachable, wrong model, or a server of its own that does not run."""


class UnscoredError(SteerError):
    """A turn without scores was asked for a number."""
