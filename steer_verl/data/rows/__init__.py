"""Rows of the sets: one schema and one reader for each form, what is wrong with one, and the files that verl reads."""
