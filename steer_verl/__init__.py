"""steer-verl: tutor-in-the-loop GRPO with trajectory-consistent rewards, as a plugin for verl."""

__version__ = "0.2.0"
