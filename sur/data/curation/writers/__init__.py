"""Models that write prompts: captions of pictures, rewritten prompts."""
