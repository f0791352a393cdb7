"""scipy, which only the statistics of an evaluation need: loaded by who computes, never by who imports the package."""

from __future__ import annotations

from typing import Any

from steer_verl.errors import ConfigError


def scipy_stats() -> Any:
    """``scipy.stats``.

    Raises:
        ConfigError: scipy is not installed.
    """
    try:
        from scipy import stats
    except ImportError:
        raise ConfigError(
            "intervals and tests need the scipy package (1.11 or newer); pip install 'steer-verl[eval]'"
        ) from None
    return stats
