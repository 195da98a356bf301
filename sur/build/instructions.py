"""What an LLM is told when it rewrites prompts, unless the configuration says otherwise."""

TO_SIMPLE = """Write one plain English sentence that says what the picture shows. Keep every person, animal, thing, \
number and colour. Leave out words about style, quality, camera and artists.

Keywords: portrait of an old fisherman, white beard, yellow raincoat, harbour, foggy morning, 85mm, highly detailed, 8k
Sentence: An old fisherman with a white beard and a yellow raincoat stands in the harbour on a foggy morning.

Keywords: two red foxes, snowy forest, sunset, digital painting, artstation, sharp focus
Sentence: Two red foxes are in a snowy forest at sunset.

Keywords: {prompt}
Sentence:"""

TO_COMPLEX = """Write the keywords that an artist would give a text-to-image program for the sentence: what is there, \
then where, then light, style and quality, separated by commas.

Sentence: An old fisherman with a white beard and a yellow raincoat stands in the harbour on a foggy morning.
Keywords: portrait of an old fisherman, white beard, yellow raincoat, harbour, foggy morning, soft light, \
highly detailed

Sentence: Two red foxes are in a snowy forest at sunset.
Keywords: two red foxes, snowy forest, sunset, warm light, digital painting, sharp focus

Sentence: {prompt}
Keywords:"""
