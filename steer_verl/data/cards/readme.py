"""``README.md`` of the folder of the sets: a dataset card as the Hugging Face hub reads it, one configuration a set.

Uploaded as it is, the folder is a data set of the hub; ``datasets.load_dataset`` reads it where it lies, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from steer_verl.data.cards.about import SUMMARIES, TITLES, use_and_limits
from steer_verl.data.cards.card import Card
from steer_verl.data.cards.figures import Account, figures, overview, work
from steer_verl.data.cards.markdown import bullets, inline, table_markdown
from steer_verl.data.licences import consequence, hub_fields, use_of_set
from steer_verl.data.seed import SetName
from steer_verl.errors import ConfigError, install_command

TITLE = "STEER sets"
TAGS = ("safety", "multi-turn", "vision-language", "red-teaming", "synthetic")
SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
_BENCH_TEXTS = ("question_id", "image", "category", "source_category", "kind", "source", "source_id", "license")
BENCH_FEATURES: list[dict[str, Any]] = [
    *({"name": name, "dtype": "string"} for name in _BENCH_TEXTS),
    {"name": "messages_fixed", "list": [{"name": name, "dtype": "string"} for name in ("role", "content")]},
    {"name": "risk_trajectory", "list": "int64"},
]
"""Columns that some rows alone have cannot be guessed from the first ones."""
READ_AT_ONCE = {"chunksize": 2**30}
"""``datasets`` reads so many bytes, takes their ``facts`` for all and fails at a further one; its own are 10 MB."""

_OPENING = """\
Sets of multi-turn dialogues about images, made of single-turn questions of other sets: {names}.
Each row names its source, and its licence.

```python
from datasets import load_dataset

rows = load_dataset("this folder, or its name on the hub", "{name}", split="{split}")
```

Image paths in the JSONL files begin at this folder. A parquet file is what verl trains from: `sft.parquet` holds its
images, `rl.parquet` names them by where the folder lay when it was written. Where the folder lies elsewhere, write
that one again, in the folder:

```bash
steer data convert rl.jsonl rl.parquet{student_format}
```"""


def check_hub() -> None:
    """Prove before any work that cards can be written.

    Raises:
        ConfigError: the package is missing.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise ConfigError(f"cards need the huggingface_hub package: {install_command('data')}") from None


def readme(sets: Mapping[SetName, Card], account: Account, *, student_format: bool = False) -> str:
    """The whole file, of the sets that have a row; ``student_format``: rl.parquet has the built-in system prompt."""
    from huggingface_hub import DatasetCard, DatasetCardData

    licenses = {license for card in sets.values() for license in card.licenses}
    parts = [f"# {TITLE}", _opening(sets, student_format), f"**Licence.** {inline(consequence(licenses))}"]
    for side, card in sets.items():
        parts += _of_set(side, card)
    for heading, tables in work(account).items():
        parts += [f"## {heading}", *map(table_markdown, tables)]
    data = DatasetCardData(**_front_matter(sets, licenses))
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"))


def _opening(sets: Mapping[SetName, Card], student_format: bool) -> str:
    side = next(iter(sets))
    names = ", ".join(f"`{each.value}`" for each in sets)
    return _OPENING.format(
        names=names, name=side.value, split=_split(side), student_format=" --student-format" * student_format
    )


def _split(side: SetName) -> str:
    return "test" if side is SetName.BENCH else "train"


def size_category(rows: int) -> str:
    """The hub's name for a number of rows: ``n<1K``, ``1K<n<10K``, ..."""
    step = len(str(rows)) - 4
    if step < 0:
        return "n<1K"
    return f"{SIZES[step]}<n<{SIZES[step + 1]}" if step + 1 < len(SIZES) else "n>1B"


def _front_matter(sets: Mapping[SetName, Card], licenses: set[str]) -> dict[str, Any]:
    closed = ["non-commercial"] if use_of_set(licenses) == "non-commercial" else []
    # of one format: datasets takes that of the first configuration for all of them
    files = {side.value: [{"split": _split(side), "path": f"{side.value}.jsonl"}] for side in sets}
    features = {"dataset_info": [{"config_name": "bench", "features": BENCH_FEATURES}]} if SetName.BENCH in sets else {}
    return {
        "pretty_name": TITLE,
        **hub_fields(licenses),
        "size_categories": [size_category(sum(card.dialogues for card in sets.values()))],
        "task_categories": ["image-text-to-text"],
        "tags": [*TAGS, *closed],
        "configs": [{"config_name": name, "data_files": found, **READ_AT_ONCE} for name, found in files.items()],
        **features,
    }


def _of_set(side: SetName, card: Card) -> Iterator[str]:
    yield f"## {TITLES[side]}\n\n{inline(SUMMARIES[side])}\n\n**Licence.** {inline(consequence(card.licenses))}"
    yield from map(table_markdown, [overview(card), *(table for found in figures(card).values() for table in found)])
    yield from (f"### {heading}\n\n{bullets(said)}" for heading, said in use_and_limits(side, card).items())
