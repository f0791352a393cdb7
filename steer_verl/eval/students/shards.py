"""What opening a checkpoint's shards would do. A shard is a pickle, and a pickle can call anything that it names.

A shard that verl 0.9.1 saves under FSDP or FSDP2 (fsdp_checkpoint_manager.py) names what makes up tensors and
``DTensor`` again, and nothing else. Any other name is refused before the merger runs. The merger then loads with
torch's own restricted unpickler (``TORCH_FORCE_WEIGHTS_ONLY_LOAD``), whatever its ``torch.load`` asks for: that holds
also for a file that was exchanged meanwhile, or that torch reads in another way than Python's ``zipfile``.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path

from steer_verl.errors import ConfigError

NEEDED = re.compile(
    r"collections OrderedDict"
    r"|torch (?:Size|device|bool|b?float\d+(?:_\w+)?|u?int\d+|complex\d+|[A-Z][A-Za-z0-9]*Storage)"
    r"|torch\.storage UntypedStorage"
    r"|torch\.serialization _get_layout"
    r"|torch\._tensor _rebuild_from_type_v2"
    r"|torch\._utils _rebuild_(?:tensor_v[23]|parameter|wrapper_subclass)"
    r"|torch\.distributed\.tensor DTensor"
    r"|torch\.distributed\.tensor\._dtensor_spec (?:DTensorSpec|TensorMeta|ShardOrderEntry)"
    r"|torch\.distributed\.tensor\.placement_types (?:Shard|_StridedShard|Replicate|Partial)"
    r"|torch\.distributed\.device_mesh DeviceMesh"
    r"|torch\.distributed\._mesh_layout (?:_MeshLayout|_FlatLayout)"
)
"""``module name`` of everything that a shard may import."""

OTHER_IMPORTS = frozenset({"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
"""Opcodes that import by a name which only running the pickle tells; ``torch.save`` writes none of them."""

MAX_PICKLE = 64 * 2**20
"""Bytes of a shard's pickle, without its tensors: a model of 72 billion parameters has about 300 kB."""

SAFE_LOAD = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
"""Environment in which ``torch.load`` runs nothing that it does not know."""


def check_shards(shards: tuple[Path, ...]) -> None:
    """Whether the shards hold nothing but tensors; they are read and not opened.

    Raises:
        ConfigError: one of them names something else, or cannot be read.
    """
    for shard in shards:
        try:
            names = foreign_names(shard)
        except Exception as error:  # zipfile and pickletools raise almost anything on hostile bytes
            why = f"{type(error).__name__}: {str(error)[:200]}"
            raise ConfigError(
                f"student.path: {shard} is no file that torch.save wrote whole ({why}); copy the checkpoint again"
            ) from None
        if names:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise ConfigError(
                f"student.path: {shard} would import {shown} when it is opened, which no shard of verl needs, so it "
                "may run anything; nothing was opened. If you trust who made it, set student.trust_checkpoint=true"
            )


def foreign_names(shard: Path) -> list[str]:
    """What a shard would import beside what it needs, sorted; opcodes that hide a name by their own name.

    Raises:
        Exception: it is no zip archive with one pickle.
    """
    with zipfile.ZipFile(shard) as archive:
        (name,) = (name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
        with archive.open(name) as file:
            pickled = file.read(MAX_PICKLE + 1)
    if len(pickled) > MAX_PICKLE:
        raise ValueError(f"its pickle is larger than {MAX_PICKLE} bytes")
    found = set()
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in OTHER_IMPORTS:
            found.add(opcode.name)
        elif opcode.name == "GLOBAL" and not NEEDED.fullmatch(str(argument)):
            found.add(str(argument).replace(" ", ".")[:100])
    return sorted(found)
