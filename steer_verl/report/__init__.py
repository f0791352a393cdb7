"""``steer report``: one page, in one file, that shows what evaluations found and what every dialogue said."""
