"""Data cards: what a set holds, where it comes from and what it may be used for, as Markdown and as one page."""
