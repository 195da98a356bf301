"""The pages of `sur view` in a real browser: keys, comparing rows, what comes later, both colour schemes."""

import re

from playwright.sync_api import Page, Route, expect

from sur.cache import RowRecord, Store, row_id


def test_pages_are_turned_by_the_arrow_keys(page: Page):
    page.goto("/rows")
    place = page.locator(".pager .place").first
    expect(place).to_have_text("1–48 of 120")
    for key, shown in (("ArrowRight", "49–96"), ("ArrowRight", "97–120"), ("ArrowLeft", "49–96")):
        page.keyboard.press(key)
        expect(place).to_have_text(f"{shown} of 120")


def press_early(page: Page, address: str, keys: tuple[str, ...]) -> None:
    """Press keys when the rows are shown, and a script is not there yet; then let it come."""
    held: list[Route] = []
    page.route("**/static/view.js", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/static/view.js"):
        page.goto(address, wait_until="commit")
    expect(page.locator(".pager .place").first).to_have_text("1–48 of 120")
    for key in keys:
        page.keyboard.press(key)
    assert page.evaluate("document.readyState") != "complete" and held
    held[0].continue_()


def test_keys_pressed_before_the_page_is_read_whole_are_not_lost(page: Page):
    press_early(page, "/rows", ("j", "x", "ArrowRight"))
    expect(page.locator(".pager .place").first).to_have_text("49–96 of 120")
    expect(page.locator("#tray img")).to_have_count(1)


def test_keys_pressed_early_mean_what_they_mean_later(page: Page):
    page.goto("/rows")
    for key in "jxjx":
        page.keyboard.press(key)
    expect(page.locator("#tray img")).to_have_count(2)
    press_early(page, "/rows", ("?", "Escape", "/", "x", "c"))
    expect(page.locator(".find input")).to_be_focused()
    expect(page.locator("#keys")).to_be_hidden()
    expect(page.locator("#tray img")).to_have_count(2)
    press_early(page, "/rows", ("j", "x"))  # chosen before, and so no longer
    expect(page.locator("#tray img")).to_have_count(1)
    press_early(page, "/rows", ("j", "Enter"))
    expect(page).to_have_url(re.compile("/rows/[0-9a-f]+"))


def test_rows_chosen_on_another_page_are_compared_by_an_early_key(page: Page):
    page.goto("/rows")
    for key in "jxjx":
        page.keyboard.press(key)
    expect(page.locator("#tray img")).to_have_count(2)
    press_early(page, "/rows", ("c",))
    expect(page.locator("h1")).to_have_text("2 rows side by side")
    expect(page.locator("[data-reload]")).to_have_count(0, timeout=30_000)


def test_slash_leads_to_the_search_and_the_search_finds(page: Page, run):
    rows = Store.open(run / "store.zarr").rows()
    page.goto("/")
    page.keyboard.press("/")
    page.keyboard.type("red triangle")
    page.keyboard.press("Enter")
    expected = [r for r in rows if all(w in f"{r.simple}\n{r.complex}".lower() for w in ("red", "triangle"))]
    expect(page.locator(".pager .place").first).to_contain_text(f"of {len(expected)}")
    expect(page.locator("tbody tr")).to_have_count(min(48, len(expected)))


def test_typing_in_a_field_is_not_taken_for_keys(page: Page):
    page.goto("/rows")
    page.locator(".filters input[name=q]").press_sequentially("x/c?j")
    expect(page.locator(".filters input[name=q]")).to_have_value("x/c?j")
    expect(page.locator("#tray")).to_be_hidden()


def test_pictures_are_really_shown_and_only_those_near_the_screen_are_loaded(page: Page):
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/pictures/" in request.url else None)
    page.set_viewport_size({"width": 1280, "height": 500})
    page.goto("/rows")
    first = page.locator("tbody img").first
    expect(first).to_have_js_property("complete", True)
    assert first.evaluate("picture => picture.naturalWidth") == 64
    assert 0 < len(asked) < 48


def test_rows_are_chosen_by_keys_over_pages_and_compared(page: Page):
    page.goto("/rows")
    for key in "jxjjx":
        page.keyboard.press(key)
    expect(page.locator("#tray img")).to_have_count(2)
    page.keyboard.press("ArrowRight")
    expect(page.locator(".pager .place").first).to_contain_text("49–")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("#compare")).to_have_text("Compare 3")
    page.keyboard.press("c")
    expect(page.locator("h1")).to_have_text("3 rows side by side")
    expect(page.locator("[data-reload]")).to_have_count(0, timeout=30_000)
    assert page.locator(".beside tr:first-child th").count() == 4
    expect(page.locator("#tray")).to_be_hidden()
    page.goto("/rows")
    page.keyboard.press("Escape")
    expect(page.locator("#tray")).to_be_hidden()


def test_no_more_than_four_rows_can_be_chosen(page: Page):
    page.goto("/rows")
    boxes = page.locator("tbody .choose")
    for number in range(4):
        boxes.nth(number).check()
    expect(boxes.nth(4)).to_be_disabled()
    boxes.nth(0).uncheck()
    expect(boxes.nth(4)).to_be_enabled()


def test_nearest_rows_come_when_a_feature_is_chosen(page: Page):
    page.goto("/rows")
    page.locator("a.simple").first.click()
    page.get_by_role("button", name="text.shapes.simple").click()
    expect(page.locator(".near figure")).to_have_count(12, timeout=30_000)
    cosines = [float(text) for text in page.locator(".near b").all_inner_texts()]
    assert cosines == sorted(cosines, reverse=True) and cosines[0] < 1
    page.locator(".near .pair").first.click()
    expect(page.locator("h1")).to_have_text("2 rows side by side")


def test_statistics_replace_the_bar_that_says_how_far_they_are(page: Page):
    page.goto("/features/vae.shapes.64")
    expect(page.locator(".chart").first).to_be_visible(timeout=30_000)
    bar = page.locator(".chart rect").first.bounding_box()
    assert bar is not None and bar["height"] > 0


def test_runs_stand_side_by_side_with_plots_scores_and_pictures(page: Page):
    page.goto("/runs")
    expect(page.locator("h1")).to_have_text("2 runs side by side")
    expect(page.get_by_text("train.learning_rate")).to_be_visible()
    line = page.locator("tr", has_text="gap closed").last
    assert line.locator("td.n").all_inner_texts() == ["91 % [30, 100]", "36 % [30, 100]"]
    for picture in page.locator(".drawn img, .plot").all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("picture => picture.naturalWidth") > 0


def test_what_a_writer_adds_is_announced_and_shown_when_asked_for(page: Page, run):
    page.goto("/rows?q=zebra")
    expect(page.locator(".empty")).to_be_visible()
    Store.open(run / "store.zarr", writable=True).add_rows([RowRecord(row_id("a zebra", "", None), "a zebra")])
    page.locator("#fresh").click(timeout=15_000)
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("#standing")).to_contain_text("121 rows")


def test_both_colour_schemes_are_readable(page: Page):
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto("/rows")
        for selector in (".simple", ".complex-prompt", ".place", "thead th", "td.dim"):
            ink, paper = (colour(page, selector, kind) for kind in ("color", "background-color"))
            assert contrast(ink, paper) >= 4.5, (scheme, selector, ink, paper)


def colour(page: Page, selector: str, kind: str) -> tuple[int, ...]:
    """Colour of an element's text, or of the first ground below it that is not transparent."""
    found = page.locator(selector).first.evaluate(
        """(element, kind) => {
            for (let at = element; at; at = at.parentElement) {
                const colour = getComputedStyle(at)[kind];
                if (!/, 0\\)$/.test(colour)) return colour;
            }
        }""",
        kind,
    )
    return tuple(int(float(each)) for each in re.findall(r"[\d.]+", found)[:3])


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Contrast ratio of two sRGB colours (WCAG 2.1)."""

    def luminance(rgb: tuple[int, ...]) -> float:
        linear = [c / 3294.6 if c <= 10.3 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_field_and_picture_has_a_name(page: Page):
    for address in ("/", "/rows", "/runs"):
        page.goto(address)
        for field in page.locator("input, select, button").all():
            named = "e => !!(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())"
            assert field.evaluate(named), (address, field.evaluate("e => e.outerHTML"))
        assert page.locator("img:not([alt])").count() == 0
        assert page.locator("h1").count() == 1
