"""The laboratory's student by transformers alone: what it sees and reads, and its memory of dialogues in lock-step.

Shapes: B dialogues, H hidden, Q tokens that are read at once, K tokens of a dialogue so far, N attention heads, G heads
of keys and values, D of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from steer_verl.mini.student import BANNED, open_image
from steer_verl.types import IMAGE_MARK, Seed

GROUPED = "grouped"
"""Name of :func:`grouped_attention` among transformers'."""


def grouped_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Tensor, None]:
    """Attention of heads (B, N, Q, D) that share keys and values (B, G, K, D), of which no copy is made.

    Under a mask, transformers' own copies all of them for each head, at each token.
    """
    if attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    (B, N, Q, D), G = query.shape, key.shape[1]
    mask_B1QK = attention_mask.repeat(1, 1, N // G, 1)  # the heads of a group as further queries
    x_BGQD = F.scaled_dot_product_attention(
        query.reshape(B, G, -1, D), key, value, mask_B1QK, scale=more.get("scaling")
    )
    return x_BGQD.reshape(B, N, Q, D).transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)


class Student:
    """A laboratory student of transformers', on the tokens of a chat with one picture at its beginning."""

    def __init__(self, folder: Path) -> None:
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.model.set_attn_implementation({"text_config": GROUPED})
        self.model.model.visual.requires_grad_(False)  # steer_verl.frozen_vision
        self.processor = AutoProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer
        self.end: int = self.tokenizer.eos_token_id
        self.image: int = self.model.config.image_token_id
        self.banned = self.tokenizer.convert_tokens_to_ids(list(BANNED))
        self._pictures: dict[str, Tensor] = {}

    def opening(self, seed: Seed) -> list[int]:
        """Tokens of a seed's first question, the picture's placeholders among them."""
        text = seed.turns[0].text.replace(IMAGE_MARK, "")
        content = [{"type": "image"}, {"type": "text", "text": text}]
        chat = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        picture = open_image(seed.turns[0].images[0])
        return self.processor(text=[chat], images=[picture])["input_ids"][0]

    def question(self, text: str) -> list[int]:
        """Tokens of a later question, from the one after the answer's end."""
        return self.tokenizer(f"\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]

    def text(self, tokens: Sequence[int]) -> str:
        """What the tutor is shown, special tokens among it as in training."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False))

    def pictures(self, paths: Sequence[str]) -> list[Tensor]:
        """What the text model sees of each picture, (patches, H)."""
        if new := list(dict.fromkeys(path for path in paths if path not in self._pictures)):
            inputs = self.processor.image_processor(images=[open_image(path) for path in new], return_tensors="pt")
            with torch.no_grad():
                self._pictures |= zip(new, self.model.model.get_image_features(**inputs).pooler_output, strict=True)
        return [self._pictures[path] for path in paths]

    def hidden(self, ids_BQ: Tensor, place_3BQ: Tensor, pictures: Sequence[Tensor] = (), **past: Any) -> Tensor:
        """Last hidden states (B, Q, H) of tokens at their places; ``past`` is what the text model takes besides."""
        x_BQH = self.model.get_input_embeddings()(ids_BQ)
        if pictures:
            x_BQH = x_BQH.masked_scatter((ids_BQ == self.image)[..., None].expand_as(x_BQH), torch.cat(list(pictures)))
        text = self.model.model.language_model
        return text(inputs_embeds=x_BQH, position_ids=place_3BQ, **past).last_hidden_state

    def places(self, ids: Sequence[int]) -> Tensor:
        """Positions (3, T) for M-RoPE: the square of patches has one time, rows and columns; text goes on behind it."""
        first, patches = ids.index(self.image), ids.count(self.image)
        side = int(patches**0.5)
        place_3T = torch.arange(len(ids)).repeat(3, 1)
        place_3T[:, first + patches :] -= patches - side
        patch = torch.arange(patches)
        place_3T[:, first : first + patches] = first + torch.stack([patch * 0, patch // side, patch % side])
        return place_3T


class _Layer(DynamicLayer):
    """Keys and values of a layer in a buffer with room to grow, so that a token does not copy all that were before."""

    ROOM = 64
    """Tokens."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add those of new tokens; returns all."""
        new_2BGQD, start = torch.stack([key_states, value_states]), self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._all_2BGKD = new_2BGQD[..., :0, :]
        end = start + key_states.shape[-2]
        if (lacking := end - self._all_2BGKD.shape[-2]) > 0:
            self._all_2BGKD = F.pad(self._all_2BGKD, (0, 0, 0, lacking + self.ROOM))
        self._all_2BGKD[..., start:end, :] = new_2BGQD
        self.keys, self.values = self._all_2BGKD[..., :end, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Forget all other dialogues."""
        self._all_2BGKD, end = self._all_2BGKD[:, indices], self.get_seq_length()
        self.keys, self.values = self._all_2BGKD[..., :end, :]


class Memory:
    """Keys and values of dialogues that are played in lock-step; a place that a dialogue does not fill is masked."""

    def __init__(self, student: Student) -> None:
        layers = student.model.config.text_config.num_hidden_layers
        self.student, self.cache = student, Cache(layers=[_Layer() for _ in range(layers)])
        self.filled_BK: Tensor | None = None

    def read(self, ids: Sequence[list[int]], places: Sequence[Tensor], pictures: Sequence[Tensor] = ()) -> Tensor:
        """Hidden states (B, H) of each dialogue's last new token; of one that has none they mean nothing."""
        length = max(map(len, ids))
        new_BQ = torch.tensor([[*row, *[self.student.end] * (length - len(row))] for row in ids])
        place_3BQ = torch.stack([F.pad(place[:, :length], (0, length - place.shape[1])) for place in places], 1)
        count_B = torch.tensor([len(row) for row in ids])
        new_filled_BQ = torch.arange(length) < count_B[:, None]
        old_BK = new_filled_BQ[:, :0] if self.filled_BK is None else self.filled_BK
        self.filled_BK = torch.cat([old_BK, new_filled_BQ], 1)
        ahead_QK = torch.arange(self.filled_BK.shape[1]) > old_BK.shape[1] + torch.arange(length)[:, None]
        seen_B1QK = (self.filled_BK[:, None] & ~ahead_QK)[:, None]
        past = {"attention_mask": {"full_attention": seen_B1QK}, "past_key_values": self.cache, "use_cache": True}
        hidden_BQH = self.student.hidden(new_BQ, place_3BQ, pictures, **past)
        return hidden_BQH[torch.arange(len(ids)), (count_B - 1).clamp(min=0)]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all others."""
        if self.filled_BK is not None:
            self.filled_BK = self.filled_BK[list(rows)]
            self.cache.batch_select_indices(torch.tensor(rows, dtype=torch.long))
