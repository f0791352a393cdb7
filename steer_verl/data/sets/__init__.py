"""The three sets and their files: disjoint, in the wanted mixture, every dialogue accounted for."""
