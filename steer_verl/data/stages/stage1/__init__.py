"""Stage I: from single-turn questions to the user's side of dialogues, by expansion or by the red team."""
