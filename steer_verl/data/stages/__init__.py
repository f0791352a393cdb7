"""What is made of a seed: who takes part, Stage I, Stage II, and the way through them (make.py)."""
