"""Statistics that know nothing of dialogues: intervals, tests, agreement."""
