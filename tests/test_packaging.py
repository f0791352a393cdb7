"""What pip learns from setup.py: above all, that nothing but the ``gpu`` extra leads it to a torch."""

import importlib.metadata as metadata
from collections.abc import Iterable

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = {"cpu", "data", "eval", "gpu", "inspect", "plots", "dev"}
STEER = metadata.distribution("steer-verl")


def wanted(of: metadata.Distribution, extras: Iterable[str]) -> list[Requirement]:
    """The requirements that apply here, with these extras."""
    needs = [Requirement(text) for text in of.requires or []]
    return [n for n in needs if n.marker is None or any(n.marker.evaluate({"extra": e}) for e in ("", *extras))]


def reached(extra: str) -> set[str]:
    """Every distribution that pip would come to, as far as the installed ones tell."""
    seen: set[str] = set()
    open_ends = [(STEER, frozenset({extra}))]
    while open_ends:
        distribution, extras = open_ends.pop()
        for need in wanted(distribution, extras):
            name = canonicalize_name(need.name)
            if name not in seen:
                seen.add(name)
                try:
                    open_ends.append((metadata.distribution(name), frozenset(need.extras)))
                except metadata.PackageNotFoundError:
                    continue
    return seen


@pytest.mark.parametrize("extra", ["", *sorted(EXTRAS - {"gpu"})])
def test_pip_is_not_led_to_torch(extra: str) -> None:
    found = reached(extra)
    assert not found & {"torch", "torchvision", "vllm", "verl"}, f"steer-verl[{extra}] leads pip to torch"
    assert {"pydantic", "typer", "rich", "pyyaml", "pillow"} <= found


def test_the_base_is_light() -> None:
    assert len(wanted(STEER, ())) <= 8


def test_the_gpu_extra_is_verls_own_vllm_set() -> None:
    (need,) = [n for n in wanted(STEER, {"gpu"}) if canonicalize_name(n.name) == "verl"]
    assert need.extras == {"vllm"} and need.specifier.contains("0.9.1") and not need.specifier.contains("0.10.0")
    assert "vllm" in metadata.metadata("verl").get_all("Provides-Extra", []), "verl has renamed its vLLM extra"


def test_extras_and_entry_points() -> None:
    assert set(STEER.metadata.get_all("Provides-Extra", [])) == EXTRAS
    points = {(point.group, point.name): point for point in STEER.entry_points}
    assert set(points) == {
        ("console_scripts", "steer"),
        ("inspect_ai", "steer_verl"),
        ("verl.plugins", "steer"),
        ("vllm.general_plugins", "steer_cpu"),
    }
    assert callable(points["console_scripts", "steer"].load())
    assert points["inspect_ai", "steer_verl"].load().steer_bench
    assert callable(points["vllm.general_plugins", "steer_cpu"].load())


def test_the_versions_agree() -> None:
    import steer_verl

    assert STEER.version == steer_verl.__version__
