"""Stage II: red-blue dialogues under a filter, and the sets that they and the seeds of Stage I become."""
