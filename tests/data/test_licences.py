"""What may be done with a set, by its sources' licences."""

from __future__ import annotations

import pytest

from steer_verl.data.licences import consequence, hub_fields, identifier, use_of, use_of_set


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


def test_identifiers_are_those_of_the_hub() -> None:
    assert identifier(" CC BY-NC 4.0 ") == "cc-by-nc-4.0"
    assert identifier("Apache License 2.0") == "apache-2.0"
