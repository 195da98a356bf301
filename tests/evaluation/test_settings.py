"""The settings of an evaluation name what the rest of the package has."""

from typing import get_args

from sur.config.evaluation import ShapesSet
from sur.shapes.questions import SET_MEANINGS, SetName


def test_the_sets_of_the_settings_are_those_of_the_shapes_world():
    assert get_args(ShapesSet) == get_args(SetName) == tuple(SET_MEANINGS)
