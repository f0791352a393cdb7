"""What is played: dialogues out of files, questions out of public sets, each row an item exactly once."""
