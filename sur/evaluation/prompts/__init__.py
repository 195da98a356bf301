"""The prompts that an evaluation draws: built-in sets and files."""
