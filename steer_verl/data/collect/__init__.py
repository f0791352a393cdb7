"""From the rows of all sources to the seeds of a build: merged, near-duplicates left out, dealt to kinds and sets."""
