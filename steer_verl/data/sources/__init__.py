"""Single-turn questions about pictures, and the public sets and private files they come from."""
