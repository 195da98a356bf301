"""Judges of pictures: CLIP, visual question answering, picture quality, the oracle of the shapes world."""
