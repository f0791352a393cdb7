"""What may be done with a set, by its sources' licences."""

from __future__ import annotations

import pytest

from steer_verl.data.licences import (
    consequence,
    forbids_training,
    hub_fields,
    identifier,
    no_derivatives,
    training_forbidden,
    use_of,
    use_of_set,
)
from steer_verl.data.sources.settings import SourceSettings, SplitSettings


@pytest.mark.parametrize(
    ("license", "use"),
    [
        ("CC-BY-NC-4.0", "non-commercial"),
        ("cc by-nc-sa 4.0", "non-commercial"),
        ("CC_BY_NC_ND_3.0", "non-commercial"),
        ("My Own Non-Commercial Licence", "non-commercial"),
        ("noncommercial research", "non-commercial"),
        ("Apache-2.0", "commercial"),
        ("Apache 2", "commercial"),
        ("MIT", "commercial"),
        ("CC-BY-4.0", "commercial"),
        ("CC-BY-SA-4.0", "commercial"),
        ("CC0", "commercial"),
        ("", "unknown"),
        ("gated", "unknown"),
        ("CC-BY-ND-4.0", "unknown"),
        ("concept licence", "unknown"),  # "nc" within a word is no part of its own
    ],
)
def test_use_by_licence(license: str, use: str) -> None:
    assert use_of(license) == use


@pytest.mark.parametrize(
    ("licenses", "use"),
    [
        (["MIT", "CC-BY-4.0"], "commercial"),
        (["MIT", "CC-BY-NC-4.0"], "non-commercial"),
        (["MIT", ""], "unknown"),
        (["", "CC-BY-NC-4.0"], "non-commercial"),
        ([], "unknown"),
    ],
)
def test_the_strictest_source_decides(licenses: list[str], use: str) -> None:
    assert use_of_set(licenses) == use


def test_the_consequence_names_the_sources_licence() -> None:
    text = consequence(["MIT", "CC-BY-NC-4.0", "", "CC-BY-SA-4.0"])
    assert "Non-commercial use only" in text and "CC-BY-NC-4.0" in text and "none stated" in text
    assert "share-alike" in text and "MIT" not in text
    assert "and 3 more" in consequence(f"licence {n}" for n in range(11))
    assert consequence(["MIT"]).startswith("Commercial use is allowed")
    assert "share-alike" not in consequence(["CC-BY-NC-4.0"])


def test_the_hubs_fields() -> None:
    assert hub_fields(["CC BY-NC 4.0"]) == {"license": "cc-by-nc-4.0"}
    assert hub_fields(["MIT", "Apache-2.0"]) == {"license": ["apache-2.0", "mit"]}
    for foreign in (["MIT", "gated"], [""], []):
        assert hub_fields(foreign)["license"] == "other"


@pytest.mark.parametrize(
    ("license", "name"),
    [
        (" CC BY-NC 4.0 ", "cc-by-nc-4.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("MIT License", "mit"),
        ("The MIT License (MIT)", "mit"),
        ("BSD 3-Clause License", "bsd-3-clause"),
        ("CC BY 4.0 International", "cc-by-4.0"),
        ("Attribution 4.0 International (CC BY 4.0)", "cc-by-4.0"),
        ("Creative Commons Attribution 4.0 International", "cc-by-4.0"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International Public License", "cc-by-nc-sa-4.0"),
        ("Creative Commons Attribution-NoDerivatives 4.0", "cc-by-nd-4.0"),
        ("CC0 1.0 Universal", "cc0-1.0"),
        ("odc-by-1.0", "odc-by"),
        ("Open Data Commons Attribution License v1.0", "odc-by"),
        ("Open Database License (ODbL) v1.0", "odbl"),
        ("MIT-0", "mit-0"),
        ("", ""),
    ],
)
def test_identifiers_are_those_of_the_hub_whatever_the_spelling(license: str, name: str) -> None:
    assert identifier(license) == name
    assert identifier(name) == name


def test_a_licence_that_would_write_on_the_terminal_is_made_plain() -> None:
    assert "\x1b" not in consequence(["\x1b]0;x\x07odd"]) and "\n" not in consequence(["two\nlines"])


def test_who_forbids_training() -> None:
    assert forbids_training("mossbench", "CC-BY-SA-4.0") and not forbids_training("vlguard", "CC-BY-SA-4.0")
    for license in ("No-Train Dataset License (NTDL) v1.0", "CC BY 4.0, test set only", "for evaluation only"):
        assert forbids_training("mine", license), license
    assert not forbids_training("mine", "MIT") and no_derivatives("CC BY-ND 4.0") and not no_derivatives("CC-BY-4.0")


def test_a_test_set_must_serve_the_benchmark_alone() -> None:
    moss = SourceSettings(set="mossbench", path="a")  # type: ignore[arg-type]
    plain = SourceSettings(set="plain", path="b")  # type: ignore[arg-type]
    why = training_forbidden([plain, moss], SplitSettings())
    assert why and "sources[1]: mossbench" in why and "bench_sources" in why
    assert training_forbidden([plain, moss], SplitSettings(bench_sources=("mossbench",))) is None
    assert training_forbidden([moss], SplitSettings(sft=0, rl=0, bench=1)) is None
    named = moss.model_copy(update={"name": "over"})
    assert "over" in (training_forbidden([named], SplitSettings(bench_sources=("mossbench",))) or "")
    assert training_forbidden([named], SplitSettings(bench_sources=("over",))) is None
    closed = plain.model_copy(update={"license": "no-train"})
    assert training_forbidden([closed], SplitSettings()) and training_forbidden([plain], SplitSettings()) is None
