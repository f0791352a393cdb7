"""Playing dialogues: the attacker environment (plain Python), and its adapters to verl's agent loop and logger."""
