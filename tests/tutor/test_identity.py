"""Which tutor gave a score: a key that changes with all that a score depends on."""

from __future__ import annotations

from pathlib import Path

from steer_verl.config import EndpointConfig, JudgeConfig, PanelConfig, TutorConfig
from steer_verl.tutor.identity import identity_of, prompt_version


def test_the_identity_follows_all_that_a_score_depends_on(tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.md"
    rubric.write_text("Judge.")
    endpoint = EndpointConfig(base_url="http://a/v1", model="m")
    panel = PanelConfig(judges=(JudgeConfig(endpoint=endpoint, format="qwen3guard"),))

    def key(rubric: str | None = None, panel: PanelConfig | None = None, **settings: object) -> str:
        config = TutorConfig(endpoint=endpoint.model_copy(update=settings), rubric=rubric, panel=panel)
        return identity_of(config, "tutor").key

    assert key() == key(base_url="http://b/v1") == key(timeout=3.0) == key(max_concurrency=1)
    assert key() == key(stream=False), "how a reply comes does not decide which one it is"
    different = [key(model="n"), key(temperature=1.0), key(images=False), key(str(rubric)), key(panel=panel)]
    different.append(identity_of(TutorConfig(endpoint=endpoint, order="scores_first"), "tutor").key)
    assert len({key(), *different}) == 7


def test_the_prompt_version_is_stable_within_a_process_and_short() -> None:
    assert prompt_version() == prompt_version.__wrapped__() and len(prompt_version()) == 8
