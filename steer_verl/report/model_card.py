"""A trained student's model card as the Hugging Face hub reads it: base, data, method, results with intervals, limits.

What was trained, and how, is read from the configuration that verl's launcher leaves (Hydra's ``.hydra/config.yaml``);
what came of it from finished evaluations. Nothing is asked of the hub, and no address or key is written down.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os.path import commonpath, expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import steer_verl
from steer_verl.config import STEER_KEY, TCSR_KEY, tcsr_config
from steer_verl.data.cards.markdown import bullets, inline
from steer_verl.errors import ConfigError, DataError, install_command
from steer_verl.eval.compare import compare
from steer_verl.eval.compare.page import headline_markdown
from steer_verl.eval.runs import EvalRun, read_run
from steer_verl.eval.summary import summarize
from steer_verl.eval.summary_table import markdown_row, summary_markdown
from steer_verl.records import write_whole
from steer_verl.settings_file import read_yaml
from steer_verl.text import one_line

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD = "README.md"
TAGS = ("safety", "multi-turn", "vision-language", "red-teaming", "grpo", "verl", "steer-verl")
HEADLINE = ("harmless_pass", "helpful_pass", "joint_pass", "refusal_full", "correct")
"""Measures that the hub shows beside the card, in per cent."""

_HUB_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_ROLLOUT = "actor_rollout_ref.rollout"
_ACTOR = "actor_rollout_ref.actor"
SETTINGS = {
    "attack": f"{STEER_KEY}.attack",
    "turns, at most": f"{STEER_KEY}.max_turns",
    "tokens of an answer, at most": f"{STEER_KEY}.max_answer_tokens",
    "tokens of a dialogue, at most": "data.max_response_length",
    "tutor": f"{STEER_KEY}.tutor.kind",
    "tutor's model": f"{STEER_KEY}.tutor.endpoint.model",
    "attacker's model": f"{STEER_KEY}.tutor.attacker.model",
    "reward preset": f"{STEER_KEY}.reward.preset",
    "prompts a step": "data.train_batch_size",
    "rollouts a prompt": f"{_ROLLOUT}.n",
    "temperature": f"{_ROLLOUT}.temperature",
    "steps": "trainer.total_training_steps",
    "epochs": "trainer.total_epochs",
    "learning rate": f"{_ACTOR}.optim.lr",
    "KL coefficient": f"{_ACTOR}.kl_loss_coef",
    "KL estimator": f"{_ACTOR}.kl_loss_type",
    "seed of the data": "data.seed",
    "seed of the rollout": f"{_ROLLOUT}.seed",
}
"""What the card says of the training -> key of verl's composed configuration."""

LIMITS = (
    "The figures hold for these dialogues, this attack and this judge. Another judge, and people, rate otherwise; an "
    "attacker with more turns, other wording or access to the weights may do better.",
    "An interval says how far the figure would move with other dialogues of the same kind, not with other training "
    "seeds, unless several were evaluated under one name.",
    "Unbroken is not unbreakable: a dialogue without a failure here is no promise about the next one.",
    "A safer student can refuse more: read the figures of benign requests beside those of attacks.",
)


@dataclass(frozen=True)
class Training:
    """A training's composed configuration."""

    file: Path
    config: Any
    """An OmegaConf node."""

    @property
    def cwd(self) -> Path:
        """Where it was started, as Hydra notes beside the configuration: its relative paths begin there."""
        from omegaconf import OmegaConf

        notes = self.file.with_name("hydra.yaml")
        values = OmegaConf.create(read_yaml(notes) if notes.is_file() else {})
        return Path(OmegaConf.select(values, "hydra.runtime.cwd") or "")

    def get(self, key: str) -> Any:
        """The plain value of a dotted key; what an environment variable said that is no longer set is named by it."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            found = OmegaConf.select(self.config, key)
            return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
        except OmegaConfBaseException:
            raw: Any = OmegaConf.to_container(self.config, resolve=False)
            for part in key.split("."):
                raw = raw.get(part) if isinstance(raw, dict) else None
            return raw


def read_training_config(path: Path) -> Training:
    """Read a training's ``config.yaml``, given as the file or as the training's or Hydra's folder.

    Raises:
        DataError: there is none, or it is not of a training.
        ConfigError: OmegaConf, which verl brings, is not installed.
    """
    try:
        from omegaconf import OmegaConf
    except ImportError:
        raise ConfigError("a training's configuration is read by omegaconf; pip install hydra-core") from None
    places = [path / place for place in ("hydra/.hydra/config.yaml", ".hydra/config.yaml", "config.yaml")]
    places = places if path.is_dir() else [path]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise DataError(f"{path}: no configuration; give Hydra's `.hydra/config.yaml` of the training, or its folder")
    try:
        config = OmegaConf.load(file)
    except Exception as error:  # yaml's and OmegaConf's own, of no common kind
        raise DataError(f"{file}: not YAML ({one_line(str(error))}); give Hydra's `.hydra/config.yaml`") from None
    training = Training(file, config)
    if not OmegaConf.is_dict(config) or training.get("actor_rollout_ref.model.path") is None:
        raise DataError(f"{file}: not of a training by verl's main_ppo; give its `.hydra/config.yaml`")
    return training


def write_model_card(
    model: Path,
    runs: Sequence[Path],
    *,
    training: Path | None = None,
    base: str | None = None,
    licence: str | None = None,
    title: str | None = None,
) -> Path:
    """Write ``README.md`` into the folder of a student.

    Args:
        model: its folder, as verl or transformers left it.
        runs: finished evaluations (``steer eval run``); the last is the student's, the others it is compared with.
        training: the training's configuration, see :func:`read_training_config`.
        base: the hub's name of the model that it began as; unless given, that of the training if it is no folder.
        licence: the hub's identifier, such as ``apache-2.0``.
        title: its name; the folder's unless given.

    Returns:
        The file.

    Raises:
        DataError: the folder holds no model or another's card, a run is not finished, or the configuration cannot be
            read.
        ConfigError: huggingface_hub is not installed, the hub would refuse ``base`` or ``licence``, or two runs cannot
            be compared.
    """
    try:
        from huggingface_hub import ModelCard, ModelCardData
    except ImportError:
        raise ConfigError(f"cards need the huggingface_hub package: {install_command('data')}") from None
    if not (model / "config.json").is_file():
        raise DataError(f"{model}: no config.json; give the folder of a Hugging Face model (verl's `huggingface`)")
    if base and not _HUB_NAME.fullmatch(base):
        raise ConfigError("--base is no name of the hub's; give one such as Qwen/Qwen2.5-VL-3B-Instruct")
    if licence and not _LICENCE.fullmatch(licence):
        raise ConfigError(f"--license {licence!r} is no identifier of the hub's; give one such as apache-2.0, or other")
    card_file = model / CARD
    if card_file.is_file() and TAGS[-1] not in card_file.read_text(encoding="utf-8", errors="replace"):
        raise DataError(f"{card_file}: not a card of ours, and it would be lost; move it away first")
    found, how = [read_run(run) for run in runs], read_training_config(training) if training else None
    began = base or (_hub_name(how) if how else None)
    name = one_line(title or model.resolve().name)
    data = ModelCardData(
        base_model=began,
        license=licence,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=list(TAGS),
        model_name=name if found else None,
        eval_results=list(_results(found[-1])) if found else None,
    )
    parts = [f"# {inline(name)}", _opening(began), *_how(how), *_outcome(found), "## Limits", bullets(LIMITS)]
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")
    write_whole(card_file, str(card))
    return card_file


def _hub_name(training: Training) -> str | None:
    """The model that it began as, if that is a name of the hub's."""
    path = str(training.get("actor_rollout_ref.model.path"))
    named = "/" in path and _HUB_NAME.fullmatch(path)
    return path if named and not (training.cwd / path).exists() else None


def _placeless(text: str) -> str:
    """Names of models without this machine's folders: unless told otherwise, a server calls a model by its folder."""
    return re.sub(r"(^|[\s,:])[~.]{0,2}/(?:\S*/)?", r"\1", text)


def _opening(base: str | None) -> str:
    began = f"It began as {inline(base)}." if base else ""
    return (
        "A vision-language model trained by tutor-in-the-loop GRPO with "
        f"steer-verl {steer_verl.__version__} (SaFeR-Steer, arXiv 2604.16358): a tutor judges every answer of a "
        f"dialogue and writes the next attack. {began}".strip()
    )


def _how(training: Training | None) -> Iterator[str]:
    """The data and the settings, each with its hash."""
    if training is None:
        return
    yield "## Training"
    facts = {name: training.get(key) for name, key in SETTINGS.items()}
    section = training.get(TCSR_KEY)
    if training.get("algorithm.adv_estimator") == "tcsr":
        preset = training.get(f"{TCSR_KEY}.preset")
        shown = [f"{key} {value}" for key, value in tcsr_config(section).model_dump().items()]
        facts["objective"] = "TCSR: " + ", ".join([f"preset {preset}"] * bool(preset) + shown)
    else:
        facts["objective"] = training.get("algorithm.adv_estimator")
    facts["configuration"] = f"sha256 {_sha256(training.file)}"
    yield _table(
        ("setting", "value"), ((name, _placeless(str(value))) for name, value in facts.items() if value is not None)
    )
    yield "## Data"
    yield _table(("file", "content"), _files(training))


def _files(training: Training) -> Iterator[tuple[str, str]]:
    """Each file that was trained on, by its name alone, and what is in it."""
    files = training.get("data.train_files") or []
    for file in files if isinstance(files, list) else [files]:
        path = training.cwd / Path(expanduser(str(file)))
        yield path.name, f"sha256 {_sha256(path)}" if path.is_file() else "no longer where it was trained from"


def _outcome(runs: Sequence[EvalRun]) -> Iterator[str]:
    """The student's figures, and beside the others' where there are some."""
    if not runs:
        return
    found = summarize(runs[-1])
    facts = {
        "attack": "adaptive: the tutor writes each next question"
        if found.attack == "adaptive"
        else "the set's own questions",
        "judge": _placeless(found.judge),
        "thresholds": ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in found.marks.items()),
        "date": found.date,
    }
    yield "## Results"
    yield _table(("evaluation", ""), list(facts.items()))
    yield summary_markdown(found).strip()
    if len(runs) > 1:
        comparison = compare(_alike(runs))
        yield "### Beside other students"
        yield headline_markdown(comparison)
        yield bullets([_placeless(note) for note in comparison.notes])


def _alike(runs: Sequence[EvalRun]) -> list[EvalRun]:
    """The runs under the student's thresholds, as its own figures are, and told apart by no more of their folders than
    that takes."""
    folders = [run.folder.resolve() for run in runs]
    shared, marks = commonpath([folder.parent for folder in folders]), runs[-1].about.marks
    return [
        replace(run, folder=folder.relative_to(shared), about=run.about.model_copy(update={"marks": marks}))
        for run, folder in zip(runs, folders, strict=True)
    ]


def _results(run: EvalRun) -> Iterator[EvalResult]:
    """The headline figures of each benchmark as the hub takes them."""
    from huggingface_hub import EvalResult

    summary = summarize(run)
    for name, subset in summary.benchmarks.items():
        for measure in HEADLINE:
            estimate = subset.measures.get(measure)
            if estimate is None or estimate.value is None:
                continue
            yield EvalResult(
                task_type="image-text-to-text",
                dataset_type="steer-verl",
                dataset_name=one_line(name),
                dataset_config=one_line(name),  # the hub tells results apart by it, and not by the name
                metric_type=measure,
                metric_name=summary.about[measure].title,
                metric_value=round(estimate.value, 2),
            )


def _table(header: Sequence[str], rows: Iterator[tuple[str, Any]] | Sequence[tuple[str, Any]]) -> str:
    lines = [markdown_row(header), markdown_row(["---"] * len(header))]
    return "\n".join([*lines, *(markdown_row([name, one_line(str(value))]) for name, value in rows)])


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
