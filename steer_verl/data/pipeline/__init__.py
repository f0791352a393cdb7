"""The whole way from seeds to sets: which steps there are, and who takes part in them."""
