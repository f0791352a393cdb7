"""What a setting may say of a server and of its key: an address without secrets, and the name of a variable.

Addresses and names are logged, dumped and sent to workers; keys come from the environment alone. No message here
repeats what was refused, for it may be the key.
"""

from __future__ import annotations

import os
import re
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator

from steer_verl.names import REWARD_MODEL_URL

EXAMPLE = "http://127.0.0.1:8000/v1"
KEYS_BELONG = "keys come from the environment: set api_key_env"

_PLACE = r"(?P<place>https?://(?:[\w.-]+|\[[\w:.]+\])(?::(?P<port>\d{1,5}))?)"
_ADDRESS = re.compile(rf"{_PLACE}(?:/[^\\]*)?", re.IGNORECASE)
_BEGINNING = re.compile(rf"{_PLACE}(?=[/?#]|$)", re.IGNORECASE)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY_PREFIXES = (
    *("sk-", "sk_", "pk-", "rk_", "hf_", "gsk_", "AIza", "xai-", "nvapi-", "pplx-", "csk-", "r8_", "fw_", "tgp_"),
    *("ghp_", "gho_", "github_pat_", "glpat-", "xoxb-", "AKIA", "ya29.", "eyJ", "sess-", "Bearer "),
)
"""How the keys of well-known services begin."""
_RUN = re.compile(r"[A-Za-z0-9]{20,}")


def clean_address(value: str) -> str:
    """An ``http(s)`` address as it is written once for all who name it, or ``verl://reward_model``.

    Without surrounding spaces, trailing slashes and the scheme's own port; scheme and host in small letters.

    Raises:
        ValueError: it holds what no address needs (user, password, query, fragment, spaces), or is none. The message
            tells scheme and host at most.
    """
    url = value.strip().rstrip("/")
    if url != REWARD_MODEL_URL and (fault := _fault(url)):
        raise ValueError(f"{fault}{_host(url)}; give an address like {EXAMPLE}; {KEYS_BELONG}")
    found = _BEGINNING.match(url)
    if found is None:  # verl://reward_model
        return url
    place = found["place"].lower()
    return place.removesuffix(":443" if place.startswith("https") else ":80") + url[found.end() :]


def _fault(url: str) -> str:
    """What is wrong with an address; empty when nothing is. What is hidden behind percent signs counts too."""
    plain = url
    for _ in range(3):
        plain = unquote(plain)
    if any(char.isspace() for char in url) or not plain.isprintable():
        return "holds white space or control characters"
    if "@" in plain:
        return "holds a user or a password"
    if any(char in plain for char in "?#="):
        return "holds a query or a fragment"
    found = _ADDRESS.fullmatch(url)
    return "" if found and int(found["port"] or 0) < 2**16 else "is no http address"


def _host(url: str) -> str:
    """Which server was meant, where that is sure to tell no more."""
    found = _BEGINNING.match(url) if "@" not in unquote(url) else None
    return f" ({found['place']})" if found and not looks_like_key(found["place"].partition("://")[2]) else ""


def variable_name(value: str) -> str:
    """The name of an environment variable; empty stands for none.

    Raises:
        ValueError: it cannot be one, or looks like a key itself.
    """
    if value and not _NAME.fullmatch(value):
        raise ValueError("is no name of an environment variable; put the key into one, and give its name here")
    if value.startswith(_KEY_PREFIXES) or (_long_mixture(value) and value not in os.environ):
        raise ValueError("looks like a key itself; put the key into an environment variable, and give its name here")
    return value


def looks_like_key(text: str) -> bool:
    """Whether it begins as well-known keys do, or holds 20 letters and digits in a row, both kinds of them."""
    return text.startswith(_KEY_PREFIXES) or any(_mixed(run) for run in _RUN.findall(text))


def _long_mixture(name: str) -> bool:
    """Longer and more mixed than names are: ``STEER_TUTOR_API_KEY_2`` is a name."""
    return looks_like_key(name) or (len(name) >= 24 and _mixed(name) and name not in (name.upper(), name.lower()))


def _mixed(text: str) -> bool:
    return any(char.isdigit() for char in text) and any(char.isalpha() for char in text)


Address = Annotated[str, AfterValidator(clean_address)]
"""A server's address; see :func:`clean_address`."""

VariableName = Annotated[str, AfterValidator(variable_name)]
"""Name of the environment variable that holds a key; see :func:`variable_name`."""
