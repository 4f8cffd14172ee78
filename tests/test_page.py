"""The page and its files, as a reader, a browser, a screen reader and LaTeX meet them."""

from __future__ import annotations

import re
import subprocess

import pandas as pd
import pytest
from conftest import program_or_skip
from made import NASTY, curves, ladder, one_out, results, trials

from ablate.report import write_report

pytestmark = pytest.mark.figures

EFFECTS = {"gating": -0.2, "depth": 0.002, "dropout": 0.3, "tying": -0.05}
ONE_OUT = {"kind": "leave_one_out", "components": list(EFFECTS)}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A study with something in every section: parts, a grid of them, failures, a nasty name, left-out cells."""
    table = ladder(EFFECTS, interaction=0.05)
    table.loc[table["cell"] == "gating", "cell"] = NASTY
    failed = (table["cell"] == "tying") & (table["seed"] == 1)
    table.loc[failed, ["status", "reason", "test_nll", "test_perplexity"]] = ["FAILED", NASTY, None, None]
    left_out = [{"label": NASTY, "reason": "tying requires embedding=hidden"}]
    made = results(table, design=ONE_OUT | {"left_out": left_out})
    return write_report(made, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    program = program_or_skip("chromium", "chromium-browser", "google-chrome", package="chromium")
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


def middle(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def box_of(page, figure):
    """The box of a figure, which scrolls and takes the focus."""
    return page.locator(f"figure:has(a[href='{figure}.svg']) .wide")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_screen_reader_finds_nothing_to_complain_of(report, browser, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page.goto(report.page.resolve().as_uri())
    page.locator("summary").click()
    box_of(page, "effects").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").is_visible()
    found = Axe().run(page).response["violations"]
    page.close()
    assert [(v["id"], v["impact"], [n["html"][:200] for n in v["nodes"]][:3]) for v in found] == []


def test_a_hostile_name_runs_nothing_and_the_page_asks_for_nothing(report, browser):
    page = browser.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(report.page.resolve().as_uri())
    assert page.locator("script:not([type='application/json'])").count() == 1  # the page's own
    assert NASTY in page.inner_text("main")
    page.close()
    assert said == []
    assert [url for url in asked if not url.startswith("file:")] == []


def test_a_mark_that_is_pointed_at_says_its_cell_its_seed_and_its_value(report, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(report.page.resolve().as_uri())
    box = box_of(page, "comparison")
    box.scroll_into_view_if_needed()
    x, y = middle(box.locator("use[style*='opacity: 0.75']").first)  # the first dot that is drawn: seed 0 of none
    page.mouse.move(x, y)
    trial = pd.read_csv(report.folder / "results.csv").query("cell == 'none' and seed == 0").iloc[0]
    assert page.inner_text("#tip") == f"none: seed 0: {trial['test_perplexity']:.1f}"
    assert middle(box.locator(".ring")) == pytest.approx((x, y), abs=1)
    page.mouse.move(5, y)
    assert not page.locator("#tip").is_visible()
    page.close()


def test_the_arrow_keys_read_a_figure_that_has_the_focus(report, browser):
    page = browser.new_page(viewport={"width": 420, "height": 900})
    page.goto(report.page.resolve().as_uri())
    box = box_of(page, "curves")
    box.focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#tip") == "none, valid perplexity, mean over seeds: 16.4 at 2 seconds"
    page.keyboard.press("Shift+ArrowRight")
    assert page.inner_text("#tip") == "tying, valid perplexity, mean over seeds: 16.4 at 2 seconds"
    ring, shown = box.locator(".ring").bounding_box(), box.bounding_box()
    assert shown["x"] <= ring["x"] <= shown["x"] + shown["width"]
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    page.close()


def test_every_heading_of_a_table_leads_to_its_line_in_the_glossary(report, browser):
    page = browser.new_page()
    page.goto(report.page.resolve().as_uri())
    headings = page.locator("thead th").all_inner_texts()
    assert len(headings) > 25
    links = page.eval_on_selector_all("thead th a", "links => links.map(a => [a.innerText, a.getAttribute('href')])")
    assert [text for text, _ in links] == headings
    terms = {href: page.text_content(f"{href} + dd") for _, href in links}
    assert all(terms.values())
    assert not page.locator("dl").is_visible()
    page.locator("th a", has_text="pairing").first.click()
    assert page.locator("dt", has_text="pairing").is_visible()
    page.close()


def test_on_a_telephone_a_table_begins_with_the_verdict_and_keeps_its_first_column(report, browser):
    page = browser.new_page(viewport={"width": 420, "height": 900})
    page.goto(report.page.resolve().as_uri())
    for name in ("comparison", "components"):
        table = page.locator(f"#table-{name}")
        region = table.locator("xpath=ancestor::div[@role='region']")
        heading = table.locator("th", has_text="verdict").bounding_box()
        assert heading["x"] + heading["width"] <= 420, name
        assert "sideways" in region.evaluate("box => getComputedStyle(box, '::before').content"), name
        region.evaluate("box => box.scrollBy(10000, 0)")
        assert table.locator("th").first.bounding_box()["x"] == region.bounding_box()["x"], name
        assert table.locator("th", has_text="verdict").bounding_box()["x"] < 0, name
    page.close()


def test_on_a_telephone_nothing_but_wide_tables_scrolls_sideways(report, browser):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(report.page.resolve().as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


@pytest.mark.figures("comparison")
def test_the_verdict_of_a_row_is_seen_without_scrolling_its_table(browser, tmp_path):
    made = write_report(results(one_out(EFFECTS), design=ONE_OUT), tmp_path)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(made.page.resolve().as_uri())
    for name in ("comparison", "components"):
        table = page.locator(f"#table-{name}")
        region = table.locator("xpath=ancestor::div[@role='region']").bounding_box()
        heading = table.locator("th", has_text="verdict").bounding_box()
        assert heading["x"] + heading["width"] <= region["x"] + region["width"], name
    page.close()


def test_every_section_is_reached_from_the_top_by_keyboard(report, browser):
    page = browser.new_page()
    page.goto(report.page.resolve().as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the finding"
    targets = page.eval_on_selector_all("nav a", "links => links.map(a => a.getAttribute('href'))")
    assert len(targets) >= 8
    assert all(page.locator(target).count() == 1 for target in targets)
    page.close()


def test_names_stay_inert_in_every_format(report):
    for path in report.folder.iterdir():
        if path.suffix in (".html", ".svg"):
            assert "<script>alert" not in path.read_text(encoding="utf-8"), path.name
    rows = [line for line in (report.folder / "comparison.md").read_text().splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    latex = (report.folder / "comparison.tex").read_text()
    line = next(line for line in latex.splitlines() if "alert(1)" in line)
    assert not re.search(r"(?<!\\)[$_#%]", re.sub(r"(?<!\\)\$(-|\\[a-z]+)\$", "", line))


@pytest.mark.figures("comparison")
def test_latex_compiles_with_any_name(report, tmp_path):
    program = program_or_skip("pdflatex", package="texlive-latex-base")
    letters = "".join(map(chr, range(0x21, 0x180)))
    names = ["日本語 → ≤ é – ±", "[x]", "*", "a--b", letters[:200], letters[200:]]
    table = trials({NASTY: [4.0, 4.1, 4.2]} | {name: [3.9, 4.0, 4.3] for name in names})
    other = write_report(results(table, name="other"), tmp_path)
    inputs = [path for folder in (report.folder, other.folder) for path in sorted(folder.glob("*.tex"))]
    assert {path.name for path in inputs} >= {"comparison.tex", "components.tex"}
    body = "\n".join(rf"\input{{{path}}}\clearpage" for path in inputs)
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "all.tex").write_text(document, encoding="utf-8")
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert r"[U+65E5][U+672C][U+8A9E] $\to$ $\le$ é – $\pm$ & " in (other.folder / "comparison.tex").read_text()


def test_every_figure_is_there_as_png_svg_and_pdf_and_in_the_page(report):
    page = report.page.read_text(encoding="utf-8")
    for name in ("comparison", "cost", "curves", "effects", "stability", "steps"):
        for suffix in (".png", ".svg", ".pdf"):
            assert (report.folder / f"{name}{suffix}").stat().st_size > 1000, name + suffix
        assert f'<a href="{name}.pdf">' in page
    assert page.count("<svg ") == 6
    assert page.count('role="img" aria-label="') == 6


@pytest.mark.figures("grid", "interactions", "effects")
def test_a_grid_has_a_heatmap_and_interactions_and_names_the_factor_that_matters_most(tmp_path):
    table = ladder({"a": -0.3, "b": 0.1}, seeds=3)
    report = write_report(results(table), tmp_path)
    for name in ("grid", "interactions", "effects"):
        assert (report.folder / f"{name}.svg").exists(), name
    assert re.match(
        r"A matters most, by the mean: a=on instead of off changes test perplexity by −2\d\.\d % on", report.findings[0]
    )
    svg = (report.folder / "grid.svg").read_text()
    means = table.groupby("cell")["test_perplexity"].mean()
    assert all(f"{mean:,.1f}" in svg for mean in means)


def test_the_ids_of_two_figures_never_meet(report):
    ids = re.findall(r'\bid="([^"]+)"', report.page.read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids))


@pytest.mark.slow
@pytest.mark.figures("effects", "stability", "steps")  # test_cli.py draws the others twice
def test_the_same_results_give_the_same_bytes(tmp_path):
    table = one_out(EFFECTS)
    folders = [write_report(results(table, design=ONE_OUT), tmp_path / place).folder for place in ("one", "other")]
    one, other = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


@pytest.mark.figures("steps")
def test_a_figure_that_a_study_no_longer_has_goes_from_its_folder(tmp_path):
    folder = write_report(results(one_out(EFFECTS), design=ONE_OUT), tmp_path).folder
    assert (folder / "steps.png").exists()
    assert (folder / "components.tex").exists()
    write_report(results(trials({"a": [4.0]})), tmp_path)
    assert not (folder / "steps.png").exists()
    assert not (folder / "components.tex").exists()


def test_cells_that_a_design_left_out_and_trials_without_a_result_are_listed_with_the_reason(report):
    page = report.page.read_text(encoding="utf-8")
    assert "tying requires embedding=hidden" in page
    assert "Without a result" in page
    assert page.count("FAILED") >= 1


@pytest.mark.figures("curves")
def test_curves_of_many_cells_show_the_best_and_say_so(tmp_path):
    table = trials({f"depth={i}": [4.0 + i / 100] for i in range(20)})
    page = write_report(results(table, points=curves(table)), tmp_path).page.read_text(encoding="utf-8")
    assert "Shown are the 10 cells with the lowest valid perplexity of 20; all are in the CSV files." in page
