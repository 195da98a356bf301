"""What is left out of a built data set: each filter at its limit, on both sides of it."""

import numpy as np
import pytest
from PIL import Image

from sur.config.curation import FiltersConfig
from sur.data.curation.content_words import content, repeated_share, shared_content, words
from sur.data.curation.filters import LeftOut, check_picture, check_rewrite, check_text, check_written
from sur.support.errors import ConfigError


def reason(check, *arguments, **config) -> str:
    """Name of the filter that leaves something out; "" for none."""
    try:
        check(*arguments, FiltersConfig(**config))
    except LeftOut as error:
        return error.filter
    return ""


def text(value, side="text", **config) -> str:
    return reason(check_text, value, side, **config)


def test_words_are_counted_in_every_script():
    assert words("A dog's 2 red-ish Cats, “naïve”!") == ["a", "dog's", "2", "red", "ish", "cats", "naïve"]
    assert words("猫が3匹") == ["猫", "が", "3", "匹"]
    assert words("красный кот") == ["красный", "кот"]
    assert words("…!?") == []


def test_content_words_have_no_articles_no_endings_and_no_words_of_the_trade():
    assert content("The two foxes are riding bikes, 8k, highly detailed") == {"two", "fox", "rid", "bik"}
    assert content("2 fox rides a bike") == {"two", "fox", "rid", "bik"}


def test_shares():
    assert shared_content("two red foxes, snow, 8k", "A red fox is in the forest.") == 0.5
    assert shared_content("the of a", "x") == 1.0
    assert repeated_share("a b c d e") == 0.0
    assert repeated_share("a b c a b c a b c") == pytest.approx(4 / 7)
    assert repeated_share("a b") == 0.0


def test_lengths_at_their_limits():
    assert text("a fox") == "too short"
    assert text("a red fox") == ""
    assert text("fox", "prompt") == "too short"
    assert text("red fox", "prompt") == ""
    assert text("w " * 60) == ""
    assert text("w " * 61) == "too long"
    assert text("w " * 251, "prompt") == "too long"
    assert text(" … ") == "empty text"


def test_forbidden_words_are_whole_words_in_any_case(tmp_path):
    more = tmp_path / "words.txt"
    more.write_text("Blood\n\nred  wine\n")
    assert text("a fox with BLOOD on it", forbidden_file=more) == "forbidden word"
    assert text("a glass of red wine", forbidden_file=more) == "forbidden word"
    assert text("a bloodhound drinks red water", forbidden_file=more) == ""
    assert text("a fox in snow", forbidden_words=("c++", "snow")) == "forbidden word"
    with pytest.raises(ConfigError, match="forbidden_file"):
        text("a fox in snow", forbidden_file=tmp_path / "absent")


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("two red circles are drawn above a small blue square", ""),
        ("portrait of a woman, artstation, 8k, octane render", ""),
        ("a red cat", ""),
        ("ein Hund sitzt auf der Wiese", "language"),
        ("un chat noir sur une table", "language"),
        ("猫がいる公園", "language"),
        ("кошка сидит на окне", "language"),
    ],
)
def test_languages(value, left):
    assert text(value, languages=("en",)) == left
    assert text(value) == ""


def test_several_languages_and_unknown_ones():
    assert text("ein Hund sitzt auf der Wiese", languages=("en", "de")) == ""
    with pytest.raises(ConfigError, match="filters.languages: xx is not known"):
        text("a red fox", languages=("xx",))


def picture(low: int, high: int, size=(80, 64)) -> Image.Image:
    return Image.fromarray(np.tile(np.array([[low, high]], np.uint8), (size[1], size[0] // 2)))


def test_tiny_and_blank_pictures():
    assert reason(check_picture, picture(0, 255)) == ""
    assert reason(check_picture, picture(0, 255, (80, 63))) == "small picture"
    assert reason(check_picture, picture(100, 103)) == "blank picture"  # a deviation of 1.5
    assert reason(check_picture, picture(100, 105)) == ""
    assert reason(check_picture, picture(100, 100), min_image_deviation=0) == ""


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("A red fox in the snow.", ""),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I am sorry, this is not something to rewrite.", "refusal"),
        ("I cannot create such a sentence.", "refusal"),
        ("As an AI language model, I have no pictures.", "refusal"),
        ("Unfortunately, I am unable to do so.", "refusal"),
        ("A sorry fox cannot create a nest.", ""),
        ("I can see a fox.", ""),
        ("  ", "empty answer"),
        ("a red fox and a red fox and a red fox and a red fox", "looping"),
    ],
)
def test_refusals_empty_answers_and_loops(value, left):
    assert reason(lambda config: check_written(value, "text", True, config)) == left


def test_a_text_that_was_cut_off_is_left_out_unless_kept():
    assert reason(lambda config: check_written("a red fox in", "text", False, config)) == "unfinished"
    assert reason(lambda config: check_written("a red fox in", "text", False, config), keep_unfinished=True) == ""


@pytest.mark.parametrize(
    ("original", "rewritten", "side", "left"),
    [
        ("two red foxes, snow, 8k, sharp focus", "Two red foxes play in the snow.", "text", ""),
        ("two red foxes, snow", "Two red foxes, snow.", "text", "unchanged"),
        ("castle, river, knight, dragon, storm", "There is a castle.", "text", "lost words"),
        ("a fox", "A fox, an old fisherman, a harbour and two boats at dawn.", "text", "invented words"),
        ("A fox sits.", "fox, sitting, harbour, boats, dawn, warm light, oil painting", "prompt", ""),
    ],
)
def test_a_rewrite_must_say_what_its_original_says(original, rewritten, side, left):
    assert reason(lambda config: check_rewrite(original, rewritten, side, config)) == left


def test_a_reason_names_both_values_and_the_setting():
    with pytest.raises(LeftOut) as error:
        check_text("a fox", "text", FiltersConfig(min_simple_words=4))
    assert error.value.field == "text"
    assert error.value.reason == "2 words, less than 4"
    assert "filters.min_simple_words" in error.value.remedy
