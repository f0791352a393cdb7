"""Facts that the build wrote are read with their types; a source's own are left alone, whatever they are called."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steer_verl.data.stages.agents import Probe, Quality
from steer_verl.data.stages.facts import Facts, HistoryRisk, Perturbed

OURS = Facts(
    question="What is it?",
    perturbation=Perturbed(kind="typography", original="a.png", phrase="STEP", box=(1, 2, 3, 4), colour="white"),
    rewrites=Probe(benign="b", obfuscated="o"),
    pairs=True,
    risk_curve=(1, 3, 5),
    breach=4,
    quality=Quality(natural=3, grounded=4, reaches=5),
    history_risk=HistoryRisk(alone=(1,), whole=5),
)


def test_what_was_written_is_read_and_the_sources_stay_beside_it() -> None:
    facts = OURS.beside({"shape": "round"})
    assert facts["shape"] == "round" and "strategy" not in facts and facts["risk_curve"] == [1, 3, 5]
    assert Facts.of(facts) == OURS


@pytest.mark.parametrize(
    "foreign",
    [
        {"risk_curve": "low"},
        {"risk_curve": [1, 9]},
        {"risk_curve": [True, 2]},
        {"breach": "5"},
        {"quality": {"natural": 5}},
        {"perturbation": "none"},
        {"pairs": 1},
        {"rewrites": ["a"]},
        {"history_risk": {"alone": "low", "whole": 5}},
        {"question": ["What?"]},
        {"category": float("nan")},
        {"answer": "\ud800"},
    ],
)
def test_a_value_of_another_form_is_the_sources_own(foreign: dict[str, Any]) -> None:
    assert Facts.of({**foreign, "choice": "B"}) == Facts(choice="B")
    assert Facts(choice="B").beside(foreign) == {**foreign, "choice": "B"}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*Facts.model_fields, "x"]), st.recursive(st.text() | st.floats(), st.lists)))
def test_nothing_in_facts_is_an_error(facts: dict[str, Any]) -> None:
    Facts.of(facts)
