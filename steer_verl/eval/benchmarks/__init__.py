"""What is played: dialogues of a file, or single-turn questions of a public set."""
