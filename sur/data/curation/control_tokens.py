"""The tokens that steer text encoders and LLMs, such as <|endoftext|>, as they may be written in a prompt."""

import re

# Tokens of text encoders and LLMs; written in a prompt, tokenizers take them for the real ones.
CONTROL_TOKEN = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?s>"
    r"|<(?:pad|unk|bos|eos|mask|extra_id_\d+|start_of_turn|end_of_turn)>"
)
