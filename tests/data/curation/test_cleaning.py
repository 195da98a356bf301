"""Prompt cleaning: every syntax by example, and what holds for any text at all."""

import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sur.config.curation import CleaningConfig, Dialect
from sur.data.curation import prompt_syntax
from sur.data.curation.cleaning import clean
from sur.data.curation.control_tokens import CONTROL_TOKEN
from sur.data.curation.prompt_syntax import TEXT, parse

DIALECTS = ("a1111", "comfyui", "invokeai", "midjourney", "plain")
PIECES = [
    *"()[]{}|:<>\\,.", " ", "\n", "a", "red fox", "1.2", ":0.5)", "0.25", "(", "((", "AND", "BREAK", "__x__", "--no ",
    "--ar 16:9", "<lora:a:1>", "embedding:b", "2$$", "0.5::", "++", "-1", "score_9", "masterpiece", "é", "猫", "e", "B",
]  # fmt: skip
PROMPTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=25).map("".join))


def text_of(prompt: str, dialect: Dialect = "a1111", steps=None, **config) -> str:
    return clean(prompt, CleaningConfig(**config), dialect, steps).text


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a (red:1.2) fox", "a red fox"),
        ("a ((very)) [dim] fox", "a very dim fox"),
        ("(a fox, (snow:1.3) falls:0.8)", "a fox, snow falls"),
        ("(time 12:30 at noon)", "time 12:30 at noon"),
        (r"miku \(vocaloid\), \[x\]", "miku (vocaloid), [x]"),
        ("fox, <lora:film_v2:0.8>, snow <hypernet:a:1>", "fox, snow"),
        ("a fox BREAK snow AND sun", "a fox, snow, sun"),
        ("a fox :1.2 AND snow :0.4", "a fox, snow"),
        ("ANDROID in BREAKFAST", "ANDROID in BREAKFAST"),
        ("[fox|wolf] in snow", "fox in snow"),
        ("[|wolf] in snow", "wolf in snow"),
        ("a __animal__ in snow", "a in snow"),
        ("a {red|blue} fox", "a red fox"),
        ("a {2$$red|blue} fox, {0.3::day|0.7::night}", "a red fox, day"),
        ("smile (((open", "smile open"),
        ("fox)) in ]snow", "fox in snow"),
        ("(fox [in) snow]", "fox in snow"),
        ("a, , ,b,, c ,", "a, b, c"),
        ("a fox, snow, A FOX", "a fox, snow"),
        ("I <3 foxes, 5 < 6", "I <3 foxes, 5 < 6"),
        ("fox: the (movie)", "fox: the movie"),
        ("", ""),
        ("()[]{}", ""),
    ],
)
def test_a1111_syntax(prompt, expected):
    assert text_of(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "steps", "expected"),
    [
        ("[fox:wolf:0.3]", None, "wolf"),  # the wolf has 70 % of the steps
        ("[fox:wolf:0.7]", None, "fox"),
        ("[fox:wolf:0.5]", None, "wolf"),
        ("[fox:wolf:15]", None, "fox"),  # of 20 steps
        ("[fox:wolf:15]", 50, "wolf"),
        ("a fox[ in snow:0.2]", None, "a fox in snow"),
        ("a fox[ in snow:0.8]", None, "a fox"),
        ("a fox[ in snow::0.8]", None, "a fox in snow"),
        ("a fox[ in snow::0.2]", None, "a fox"),
        ("[a (red:1.2) fox:[a wolf|a dog]:0.9]", None, "a red fox"),
        ("[a (red:1.2) fox:[a wolf|a dog]:0.1]", None, "a wolf"),
    ],
)
def test_editing_keeps_what_holds_for_the_longer_part_of_the_steps(prompt, steps, expected):
    assert text_of(prompt, steps=steps) == expected


def test_all_choices_may_be_kept():
    assert text_of("a [red|blue|green] {fox|wolf}", all_choices=True) == "a red, blue, green fox, wolf"


def test_comfyui_takes_square_brackets_for_text_and_names_embeddings():
    made = clean("a [fox] (snow:1.3), embedding:bad-hands-5, x", CleaningConfig(), "comfyui")
    assert made.text == "a [fox] snow, x"
    assert ("network", "embedding:bad-hands-5") in made.removed


def test_invokeai_writes_weights_behind():
    assert text_of("(a fox)1.3 bright++ (dim)-- well-known 1-2", "invokeai") == "a fox bright dim well-known 1-2"


def test_midjourney_flags_leave_and_its_no_is_a_negative_part():
    made = clean("a fox, snow --ar 16:9 --no fog, rain --v 6 —s 50", CleaningConfig(), "midjourney")
    assert (made.text, made.negative) == ("a fox, snow", "fog, rain")


def test_negative_weights_and_subprompts_are_negative_parts():
    made = clean("a fox (fog:-1.5) (sun:0) AND a dog:-1 AND snow:1", CleaningConfig())
    assert (made.text, made.negative) == ("a fox, snow", "fog, a dog")
    assert ("weight of zero", "sun") in made.removed


def test_a_prompt_pasted_with_its_settings_is_taken_apart():
    made = clean("a fox\nNegative prompt: fog\nSteps: 20, Sampler: Euler a, CFG scale: 7", CleaningConfig())
    assert (made.text, made.negative) == ("a fox", "fog")
    assert made.removed[0].source.endswith("CFG scale: 7")
    assert clean("a fox\nNegative prompt: fog", CleaningConfig()).negative == "fog"


@pytest.mark.parametrize("prompt", ["Style: anime, Subject: cat, Colour: red", "Steps: of stone, Light: dim, Sky: red"])
def test_words_with_colons_are_not_taken_for_settings(prompt):
    assert text_of(prompt) == prompt


def test_plain_prompts_are_left_alone():
    prompt = "a (fox:1.2) [x], Negative prompt: fog"
    assert text_of(prompt, "plain") == prompt


def test_quality_tags_go_only_when_asked():
    prompt = "score_9, score_8_up, masterpiece, Best Quality, 8k, a fox of high quality"
    assert text_of(prompt) == prompt
    made = clean(prompt, CleaningConfig(drop_quality_tags=True))
    assert made.text == "a fox of high quality"
    assert [removal.source for removal in made.removed] == prompt.split(", ")[:5]


def test_parts_of_the_user_s_own_list_and_booru_underscores():
    assert text_of("a fox, by Nobody, snow", drop_parts=("by nobody",)) == "a fox, snow"
    assert text_of("long_hair, ^_^", underscores=True) == "long hair, ^_^"


@pytest.mark.parametrize("dialect", DIALECTS)
@given(prompt=PROMPTS)
@settings(max_examples=120, deadline=None)
def test_spans_cover_any_text_exactly(dialect, prompt):
    assert "".join(span.source for span in parse(prompt, dialect)) == prompt


@pytest.mark.parametrize("dialect", DIALECTS)
@given(prompt=PROMPTS)
@settings(max_examples=120, deadline=None)
def test_no_character_is_lost_silently(dialect, prompt):
    """What is not in the cleaned text is in the list of what was left out, but for spaces, commas and backslashes."""
    made = clean(prompt, CleaningConfig(dialect=dialect))
    told = made.text + "".join(removal.source for removal in made.removed)
    for character in set(prompt) - set(" ,\\\n") - {c for c in prompt if c.isspace()}:
        assert told.count(character) >= prompt.count(character), character


@given(prompt=PROMPTS)
@settings(max_examples=120, deadline=None)
def test_what_is_left_in_is_words_of_the_prompt_in_their_order(prompt):
    rest = iter(re.sub(r"[\s,]", "", prompt))
    assert all(character in rest for character in re.sub(r"[\s,]", "", clean(prompt, CleaningConfig()).text))


@given(words=st.lists(st.from_regex(r"[a-z0-9éü'.-]{1,8}( [a-z0-9]{1,8})?", fullmatch=True), max_size=12, unique=True))
@settings(max_examples=200, deadline=None)
def test_plain_words_stay_as_they_are(words):
    made = clean(", ".join(words), CleaningConfig())
    assert made.text == ", ".join(words)
    assert made.removed == ()


@given(prompt=PROMPTS.filter(lambda prompt: "\\" not in prompt))
@settings(max_examples=120, deadline=None)
def test_no_markup_of_weights_is_left_where_nothing_is_escaped(prompt):
    spans = parse(prompt, "a1111")
    assert not re.search(
        r"[()\[\]{}]", "".join(span.shown for span in spans if span.kind == TEXT and "<" not in span.source)
    )


def steps_of(prompt: str, dialect: Dialect = "a1111") -> int:
    """Lines that the parser executes, and the elements of lists that it gets from one to another."""
    count = 0

    def tracer(frame, event, arg):
        nonlocal count
        if frame.f_code.co_filename != prompt_syntax.__file__:
            return None
        count += 1
        for value in frame.f_locals.values() if event == "call" else ():
            count += len(value) if isinstance(value, list) else 0
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        parse(prompt, dialect)
    finally:
        sys.settrace(before)
    return count


UNITS = ("(", "[a:", "{a|", "([{", "(]", "{1$$(", "AND a:1 ", "e", "a:", "__a", "embedding:.")
NESTED = (("(", ":0)"), ("[", ":0.1]"), ("[a:", ":9.1]"), ("{a|", "}"), ("{|", "}"), ("{1$$a|", "}"), ("[|", "]"))
MANY = [lambda n, unit=unit: (unit * n)[:n] for unit in UNITS]
MANY += [lambda n, ends=ends: ends[0] * (n // 8) + "fox" + ends[1] * (n // 8) for ends in NESTED]


@pytest.mark.parametrize("make", MANY, ids=[*UNITS, *(f"{left}...{right}" for left, right in NESTED)])
def test_two_hundred_thousand_characters_of_any_syntax_take_steps_by_their_number(make):
    prompt = make(200_000)
    assert "".join(span.source for span in parse(prompt)) == prompt
    assert steps_of(make(4_000)) < 2.2 * steps_of(make(2_000)) + 50


def test_numbers_of_any_length_are_read_once():
    for prompt in ("(a:" + "1" * 200_000 + "x)", "{" + "1" * 200_000 + "x}", "\n" * 200_000):
        assert "".join(span.source for span in parse(prompt)) == prompt
    assert clean("\n" * 200_000 + "a fox\n Negative prompt: fog", CleaningConfig()).negative == "fog"


def test_an_escape_before_an_invokeai_weight_stays_taken_off():
    assert text_of(r"miku \(x\) bright++", "invokeai") == "miku (x) bright"


def test_ten_thousand_brackets_need_no_recursion():
    assert text_of("(" * 10_000 + "fox" + ")" * 10_000) == "fox"
    assert text_of("[" * 3_000 + "fox" + ":0.1]" * 3_000) == "fox"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "token",
    [
        "<|endoftext|>",
        "<|startoftext|>",
        "<s>",
        "</s>",
        "<pad>",
        "<extra_id_7>",
        "<|im_start|>",
        "<｜end▁of▁sentence｜>",
    ],
)
def test_tokens_that_steer_an_encoder_are_left_out_in_every_dialect(dialect, token):
    cleaned = clean(f"a fox{token}snow {token}", CleaningConfig(), dialect)
    assert cleaned.text == "a fox, snow"
    assert [removal.source for removal in cleaned.removed] == [token, token]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a fox <|end(of:1.2)text|> snow", "a fox, snow"),
        ("a <|end<|endoftext|>oftext|> fox", "a <|end, oftext|> fox"),
        ("[a fox <|endoftext|>|snow]", "a fox"),
        ("a {red <|im_end|> fox|hen}", "a red, fox"),
        ("I <3 <b>foxes</b>, a <small> one", "I <3 <b>foxes</b>, a <small> one"),
    ],
)
def test_tokens_that_markup_takes_apart_are_left_out_too(prompt, expected):
    assert text_of(prompt) == expected


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([*PIECES, "<|", "|>", "endoftext", "<|endoftext|>", "</s>", "<", "s>"]), max_size=12).map(
        "".join
    )
)
def test_no_cleaned_prompt_holds_a_token_that_steers_an_encoder(prompt):
    for dialect in DIALECTS:
        cleaned = clean(prompt, CleaningConfig(), dialect)
        assert not CONTROL_TOKEN.search(f"{cleaned.text}\n{cleaned.negative}")
