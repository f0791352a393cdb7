"""What Inspect finds of us, by the entry point group ``inspect_ai`` of setup.py."""

from steer_verl.eval.inspect.provider import steer
from steer_verl.eval.inspect.task import steer_bench, steer_dialogue, steer_judge, steer_unrated

__all__ = ["steer", "steer_bench", "steer_dialogue", "steer_judge", "steer_unrated"]
