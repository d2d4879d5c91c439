"""Pages in a browser: no error, nothing fetched, hostile text stays text, and every control does what it says."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from support.browser import opened, started
from support.page_runs import FIFTH, HALF, QUARTER, ROWS, row, write_completions, write_run

from lightning_bnf.pages.compare import compare
from lightning_bnf.pages.report import write_report
from lightning_bnf.pages.scores import ShownRow, Snapshot, write_snapshot
from lightning_bnf.pages.token_view import token_view

pytestmark = pytest.mark.slow

SCRIPT = "</script><img src=x onerror=alert(1)>"
HOSTILE = [
    row("script", SCRIPT, [SCRIPT, "<b>bold</b>", "&amp;"], ["${1}", "{{ 7 * 7 }}", "<!--"]),
    row(
        "right to left",
        "\u05e9\u05dc\u05d5\u05dd",
        ["\u202e", "abc", "\u05e9\u05dc"],
        ["\u0645\u0631\u062d\u0628\u0627", " \u2066x"],
    ),
    row(
        "odd",
        "a\x00b\ufeff\u2028\u2029c",
        ["\x00", "\U0001f600", "\U0001f468\u200d\U0001f469", "\r\n"],
        ["", "\ud800", "\n"],
    ),
    row("long", "p" * 20_000, ["word "] * 20_000, ["y"]),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as found:
        yield found


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    return write_report(write_run(tmp_path / "run"))


def tokens(page: Page, side: str, place: int = 0) -> list[str]:
    return page.locator(f".answer.{side}").nth(place).locator(".t").all_text_contents()


def ink(page: Page, side: str, place: int = 0) -> list[float]:
    """How strongly the tokens of an answer are coloured, from 0 to 1."""
    found = page.locator(f".answer.{side}").nth(place).locator(".t")
    return [float(value) for value in found.evaluate_all("all => all.map(t => t.style.getPropertyValue('--a'))")]


def press(page: Page, name: str) -> None:
    button = page.get_by_role("button", name=re.compile(f"^{name}"))
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")


def test_tokens_are_whole_and_in_order(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        expect(page.locator("article.row")).to_have_count(2)
        assert tokens(page, "chosen") == ["Se", "ven", "."]
        assert tokens(page, "rejected", 1) == ["A", " long", " answer", "\u21b5\n", "of dogs"]


def test_colours_are_the_numbers(browser: Browser, page_file: Path) -> None:
    """Chosen stay at 1/2; rejected go over 1/4 to 1/5: weights 1/3 and 1/4, log-ratios log(1/2) and log(2/5)."""
    with opened(browser, page_file) as page:
        assert ink(page, "chosen") == [1, 1, 1]
        assert ink(page, "rejected") == [0.25, 0.25]
        assert page.locator(".answer.rejected .t.alone").count() == 7
        press(page, "middle")
        assert ink(page, "rejected") == [0.333, 0.333]
        press(page, "start")
        assert ink(page, "rejected") == [1, 1]
        assert page.locator(".t.alone").count() == 1  # the legend's
        press(page, "log-ratio")
        assert ink(page, "rejected") == [0, 0]
        press(page, "end")
        assert ink(page, "rejected") == pytest.approx([-math.log(2 / 5)] * 2, abs=2e-3)  # of 1 nat at full strength
        assert page.locator(".answer.rejected .t.down").count() == 7
        press(page, "probability")
        assert ink(page, "rejected") == [0.2, 0.2]
        assert ink(page, "chosen") == [0.5, 0.5, 0.5]
        expect(page.locator(".means")).to_contain_text("all rejected tokens")


def test_the_means_say_what_is_left_alone(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        expect(page.locator(".means")).to_contain_text("mean weight 0.25")
        expect(page.locator(".described").nth(1)).to_have_text(
            "2 tokens \u00b7 mean weight 0.25 \u00b7 100 % left alone"
        )


def test_numbers_under_the_pointer_and_at_the_keyboards_place(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        tip = page.get_by_role("tooltip")
        expect(tip).to_be_hidden()
        page.locator(".answer.rejected .t").first.hover()
        expect(tip).to_be_visible()
        lines = [line.split("\t") for line in tip.inner_text().splitlines() if "\t" in line]
        assert lines[0][1:] == ["start", "middle", "end"]
        assert {line[0]: line[1:] for line in lines[1:]} == {
            "probability": ["50 %", "25 %", "20 %"],
            "log-prob (nats)": ["\u22120.69", "\u22121.39", "\u22121.61"],
            "log-ratio": ["0.00", "\u22120.69", "\u22120.92"],
            "BNF\u2019s weight": ["1.00", "0.33", "0.25"],
        }
        text = page.locator(".answer.chosen .text").first
        text.focus()
        for word in ("Se", "ven", "."):
            page.keyboard.press("ArrowRight")
            expect(tip).to_contain_text(f'"{word}"')
        page.keyboard.press("ArrowLeft")
        expect(tip).to_contain_text('"ven"')
        page.keyboard.press("Escape")
        expect(tip).to_be_hidden()
        expect(text).to_be_focused()


def test_search_and_order(browser: Browser, tmp_path: Path) -> None:
    """Rejected tokens of the three rows end at 1/2, 1/5 and 1/4: margins grow by 0, log(5/2) and log 2."""
    rows = [row(name, f"prompt {name}", ["yes"] * length, ["no"]) for name, length in (("a", 2), ("b", 1), ("c", 3))]
    folder = write_run(tmp_path / "run", rows)
    write_snapshot(
        folder, "end", Snapshot(2, [[[HALF] * n, [end]] for n, end in ((2, HALF), (1, FIFTH), (3, QUARTER))])
    )
    with opened(browser, write_report(folder)) as page:
        prompts = page.locator("article.row .prompt")

        def order(by: str) -> list[str]:
            page.get_by_label("Order of the rows").select_option(by)
            return [text[-1] for text in prompts.all_text_contents()]

        assert order("file") == ["a", "b", "c"]
        assert order("margin_change") == ["a", "c", "b"]
        assert order("rejected") == ["b", "c", "a"]
        assert order("length") == ["c", "a", "b"]
        box = page.get_by_role("searchbox")
        box.fill("PROMPT B")
        expect(prompts).to_have_count(1)
        expect(page.locator(".count")).to_have_text("1 of 3 rows")
        box.fill("nowhere")
        expect(prompts).to_have_count(0)
        box.fill("")
        expect(prompts).to_have_count(3)


def test_hostile_text_stays_text(browser: Browser, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", HOSTILE)
    write_completions(
        folder, [(SCRIPT, SCRIPT, False, f"{SCRIPT}\x00\u202e\ud800", True), ("p", "w " * 50_000, True, "x", True)]
    )
    (folder / "data_report.txt").write_text(SCRIPT)
    with opened(browser, write_report(folder)) as page:
        expect(page.locator("article.row")).to_have_count(4)
        assert page.locator("img, article b:not(.label b):not(.label *)").count() == 0
        assert tokens(page, "chosen")[0] == SCRIPT
        assert page.locator("article.row .prompt").first.text_content() == SCRIPT
        assert tokens(page, "chosen", 1) == ["\u202e", "abc", "\u05e9\u05dc"]
        assert tokens(page, "chosen", 2)[1:3] == ["\U0001f600", "\U0001f468\u200d\U0001f469"]
        expect(page.locator(".answer.chosen").nth(3)).to_contain_text("20,000 tokens")
        assert page.locator(".answer.chosen").nth(3).locator(".t").count() == 1500
        page.get_by_role("button", name="show 2,500 more tokens").click()
        expect(page.locator(".answer.chosen").nth(3).locator(".t")).to_have_count(4000)
        expect(page.locator(".answer.chosen").nth(3)).to_contain_text("16,000 more tokens are not in this page")
        assert page.locator("#answers ins").first.text_content()
        assert page.evaluate("document.querySelectorAll('script').length") == 2


def luminance(colour: str) -> float:
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    linear = [(x / 255) / 12.92 if x <= 10 else ((x / 255 + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_read_in_light_and_in_dark(browser: Browser, page_file: Path, scheme: str) -> None:
    with opened(browser, page_file, color_scheme=scheme) as page:
        style = "element => [getComputedStyle(element).color, getComputedStyle(element).backgroundColor]"
        ink_colour, ground = map(luminance, page.locator("body").evaluate(style))
        assert (ground < 0.05) == (scheme == "dark")
        assert (max(ink_colour, ground) + 0.05) / (min(ink_colour, ground) + 0.05) > 10
        axis = page.locator("#curves svg text").first.evaluate("element => getComputedStyle(element).fill")
        assert luminance(axis) == pytest.approx(ink_colour)


@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_is_wider_than_the_window(browser: Browser, page_file: Path, width: int) -> None:
    with opened(browser, page_file, viewport={"width": width, "height": 900}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        expect(page.locator("article.row").first).to_be_visible()


def test_runs_beside_each_other(browser: Browser, tmp_path: Path) -> None:
    folders = [
        str(write_run(tmp_path / loss, loss=loss, rejected=end)) for loss, end in (("BNF", FIFTH), ("DPO", QUARTER))
    ]
    compare(folders, str(tmp_path / "both.html"))
    with opened(browser, tmp_path / "both.html", viewport={"width": 400, "height": 900}) as page:
        expect(page.locator("article.row")).to_have_count(2)
        expect(page.locator("article.row").first.locator("h3")).to_have_text(["BNF", "DPO"])
        assert [ink(page, "rejected", place) for place in (0, 1)] == [[0.25, 0.25], [0.333, 0.333]]
        assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_view_in_a_notebook(browser: Browser, tmp_path: Path) -> None:
    notebook = tmp_path / "notebook.html"
    notebook.write_text(
        f"<!doctype html><body>{token_view(write_run(tmp_path / 'run'))._repr_html_()}", encoding="utf-8"
    )
    with opened(browser, notebook) as page:
        frame = page.frame_locator("iframe")
        expect(frame.locator("article.row")).to_have_count(2)
        frame.get_by_role("button", name="probability").click()
        expect(frame.locator(".t.p").first).to_be_visible()


def test_a_thousand_rows_are_drawn_a_few_at_a_time(browser: Browser, tmp_path: Path) -> None:
    rows: list[ShownRow] = [row(str(i), f"prompt {i}", ["word "] * 100, ["word "] * 100) for i in range(1000)]
    path = write_report(write_run(tmp_path / "run", [*ROWS, *rows]))
    assert path.stat().st_size < 5_000_000
    with opened(browser, path) as page:
        expect(page.locator(".count")).to_have_text("1002 rows")
        expect(page.locator("article.row")).to_have_count(8)
        page.get_by_role("button", name="show 8 more rows").click()
        expect(page.locator("article.row")).to_have_count(16)
