"""Single-turn questions about images, and the public sets and private files they come from."""
