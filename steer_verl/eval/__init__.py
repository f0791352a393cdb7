"""Evaluation: marks per turn, measures with intervals, survival by turn, the drivers that play or read dialogues."""
