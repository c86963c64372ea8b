"""The page in a real browser: every figure is drawn, nothing is fetched, and controls work."""

import csv
import os
import shutil

import pytest
import reports

from uds_adapters.lab.report.folders import write
from uds_adapters.lab.report.policies import first_sentence

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which is not installed")

DESKTOP, PHONE = 1280, 390
FIGURES = (
    "table differences curves frontier time scores overlap lengths statistics map records".split()  # noqa: SIM905
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("needs a browser, and none of chromium and Chrome is installed")
    sandbox = [] if os.name == "nt" or os.geteuid() else ["--no-sandbox"]  # which root does not get
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=sandbox)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = reports.write(tmp_path_factory.mktemp("browser") / "one")
    return write([folder], folder / "report.html")


class Opened:
    """A page, and what it complained of and asked for meanwhile."""

    def __init__(self, browser, file, *, width=DESKTOP, scheme="light"):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.context.set_default_timeout(60_000)  # machines of tests can be very busy
        self.page = self.context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.requests.remove(file.as_uri())

    def figure(self, name):
        return self.page.locator(f"figure[data-figure={name}]")

    def marks(self, name):
        """How much is drawn in a figure."""
        return self.figure(name).locator(".plot").locator("path, circle, rect, td, article").count()

    def shown(self):
        return [name for name in FIGURES if self.figure(name).is_visible()]

    def background(self):
        return self.page.evaluate("getComputedStyle(document.body).backgroundColor")

    def download(self, name):
        with self.page.expect_download() as started:
            self.figure(name).get_by_role("button", name="CSV").click()
        with open(started.value.path(), encoding="utf-8", newline="") as stream:  # noqa: PTH123 - csv wants no newline
            return started.value.suggested_filename, list(csv.reader(stream))

    def close(self):
        self.context.close()
        assert self.complaints == []
        assert self.requests == []


@pytest.fixture
def opened(browser, made):
    page = Opened(browser, made)
    yield page
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_every_figure_is_drawn_and_nothing_is_wider_than_the_window(browser, made, width, scheme):
    page = Opened(browser, made, width=width, scheme=scheme)
    assert page.shown() == list(FIGURES)
    assert {name: page.marks(name) for name in FIGURES if page.marks(name) < 3} == {}
    assert page.page.evaluate("document.documentElement.scrollWidth") == width
    wider = (
        "[...document.querySelectorAll('.plot svg')].filter(s => s.getBoundingClientRect().right > innerWidth).length"
    )
    assert page.page.evaluate(wider) == 0
    page.close()


def test_the_verdict_is_at_the_top(opened):
    verdict = opened.page.locator("#verdict")
    assert verdict.inner_text() == "uds:alpha=auto is <better> than random by 0.08 ± 0.02 nats at equal samples."
    assert verdict.bounding_box()["y"] < 300


def test_what_the_model_reads_and_what_carries_loss_is_marked(opened):
    preview = opened.page.locator("#preview")
    assert preview.locator("article").count() == 4
    first = preview.locator("article").first
    assert first.locator("pre").inner_text().startswith("<s>")
    assert first.locator("mark").inner_text() in first.locator("pre").inner_text()
    assert first.locator("mark").inner_text().endswith("</s>")
    assert "Not part of the text: the field <'id'>." in preview.inner_text()
    assert "with an empty completion: train.jsonl:9 and 1 more" in preview.inner_text()
    assert opened.page.get_by_role("link", name="Data").is_visible()


def test_results_without_a_preview_have_no_such_section(browser, tmp_path):
    folder = reports.write(tmp_path / "some", records=60, steps=6, preview=False)
    page = Opened(browser, write([folder], folder / "report.html"))
    assert page.page.locator("#read").is_hidden()
    assert page.page.get_by_role("link", name="Data").count() == 0
    page.close()


def test_every_policy_is_explained_by_its_docstring(opened):
    listed = opened.page.locator("#explanations")
    assert listed.locator("dt").all_inner_texts() == ["full", "random", "longest", "uds"]
    assert listed.locator("dd").all_inner_texts() == [
        first_sentence(name) for name in ("full", "random", "longest", "uds")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_browser_and_the_button(browser, made, scheme):
    page = Opened(browser, made, scheme=scheme)
    first = page.background()
    assert (sum(map(int, first[4:-1].split(","))) < 200) == (scheme == "dark")
    page.page.get_by_role("button", name="Switch between light and dark").click()
    assert page.background() != first
    page.page.get_by_role("button", name="Switch between light and dark").click()
    assert page.background() == first
    page.close()


def test_curves_go_against_samples_tokens_and_seconds(opened):
    figure = opened.figure("curves")
    drawn = {}
    for along in ("samples", "tokens", "seconds"):
        figure.get_by_role("button", name=along).click()
        assert figure.get_by_role("button", name=along).get_attribute("aria-pressed") == "true"
        drawn[along] = figure.locator("svg text").all_text_contents()
    assert drawn["samples"] != drawn["tokens"] != drawn["seconds"]
    assert "seconds of training" in drawn["seconds"]
    assert "seconds of training" in opened.figure("frontier").locator("svg text").all_text_contents()


def test_a_metric_is_chosen_for_all_figures(opened):
    opened.figure("curves").get_by_role("button", name="accuracy").click()
    for name in ("curves", "frontier"):
        assert "accuracy" in opened.figure(name).locator("svg text").all_text_contents()
    assert any(
        "difference in accuracy" in text for text in opened.figure("differences").locator("text").all_text_contents()
    )


def test_bands_lines_and_the_value_before_training(opened):
    figure = opened.figure("curves")
    assert figure.locator("path.band").count() == figure.locator("path.mean").count() == 4
    without = figure.locator("circle").count()
    opened.page.get_by_label("show the value before training").check()
    assert figure.locator("circle").count() == without + 2 * 4


def test_a_policy_can_be_hidden(opened):
    figure = opened.figure("curves")
    for hidden in range(1, 5):
        figure.locator(".legend button").nth(hidden - 1).click()
        assert figure.locator("path.mean").count() == 4 - hidden
    figure.locator(".legend button").first.click()
    assert figure.locator("path.mean").count() == 1


@pytest.mark.parametrize(("name", "value"), [("map", "random"), ("map", "flag:wrong"), ("lengths", "random")])
def test_menus_of_policies_and_properties(opened, name, value):
    figure = opened.figure(name)
    before = figure.locator(".plot").inner_html()
    figure.locator("select").select_option(value)
    assert figure.locator("select").input_value() == value
    assert figure.locator(".plot").inner_html() != before


def test_scores_of_another_policy_and_another_part(opened):
    policy, part = (opened.figure("scores").locator("select").nth(n) for n in (0, 1))
    assert (policy.input_value(), part.input_value()) == ("uds:alpha=auto", "score")
    part.select_option("diversity")
    assert "diversity, minus its pool's median" in opened.figure("scores").locator("svg text").all_text_contents()
    policy.select_option("longest")  # which has a score and nothing else
    assert opened.figure("scores").locator("select").nth(1).input_value() == "score"


def test_records_are_searched_and_filtered(opened):
    figure = opened.figure("records")
    note = figure.locator("[data-note=records]")
    articles = figure.locator("article")
    assert note.inner_text() == "300 records match."
    opened.page.get_by_role("button", name="Show more").click()
    assert articles.count() == 70
    figure.get_by_placeholder("words in the text").fill("CAPITALS")
    assert 0 < articles.count() < 70
    assert all("capitals" in text for text in articles.locator("p").all_inner_texts())
    assert articles.locator("mark").first.inner_text() == "capitals"
    figure.locator("[name=by]").select_option("full")
    figure.locator("[name=without]").select_option("uds:alpha=auto")
    assert all("uds:alpha=auto never" in text for text in articles.locator(".about").all_inner_texts())
    figure.get_by_placeholder("words in the text").fill("no record says this")
    assert figure.locator(".plot").inner_text() == "No record matches all filters."


def test_records_in_another_order(opened):
    opened.page.locator("[name=order]").select_option("longest")
    texts = opened.figure("records").locator(".about").all_inner_texts()
    lengths = [int(text.split(" tokens")[0].split()[-1]) for text in texts]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


@pytest.mark.parametrize("names", [FIGURES[:6], FIGURES[6:]], ids=" ".join)  # Chromium allows ten downloads at a time
def test_the_data_behind_each_figure_can_be_downloaded(opened, names):
    for name in names:
        file, rows = opened.download(name)
        assert file == f"{name}.csv"
        assert len(rows) >= 4
        assert {len(row) for row in rows} == {len(rows[0])}


def test_a_downloaded_curve_holds_what_was_measured(opened):
    _, [head, *rows] = opened.download("curves")
    assert head == ["policy", "seed", "samples", "tokens", "seconds", "loss", "accuracy"]
    assert len(rows) == 4 * 2 * 9
    assert rows[0] == ["full", "0", "0", "0", "0", "3.6", "0.25"]


def test_what_is_touched_says_what_it_is(opened):
    tip = opened.page.locator("#tip")
    assert tip.is_hidden()
    opened.figure("time").locator("rect").first.hover()
    assert "scoring candidates" in tip.inner_text() or "forward and backward" in tip.inner_text()
    opened.page.locator("h1").hover()
    assert tip.is_hidden()


def test_a_narrower_window_is_drawn_anew(opened):
    opened.page.set_viewport_size({"width": PHONE, "height": 900})
    opened.page.wait_for_function("document.querySelector('[data-figure=curves] svg').viewBox.baseVal.width < 390")
    assert opened.page.evaluate("document.documentElement.scrollWidth") == PHONE


@pytest.mark.parametrize(
    ("missing", "hidden"),
    [
        ({"policies": ("uds",)}, {"differences", "overlap"}),
        ({"measured": False}, {"differences", "curves", "frontier"}),
        ({"seeds": (0,)}, {"differences"}),
        ({"audits": False}, {"scores"}),
        ({"chart": False}, {"map"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_known_is_left_out(browser, tmp_path, missing, hidden):
    folder = reports.write(tmp_path / "some", **{"records": 60, "steps": 6, **missing})
    page = Opened(browser, write([folder], folder / "report.html"), width=PHONE)
    assert set(FIGURES) - set(page.shown()) == hidden
    assert page.page.evaluate("document.documentElement.scrollWidth") == PHONE
    page.close()


def test_several_folders_have_a_menu(browser, tmp_path):
    folders = [reports.write(tmp_path / name, records=60, steps=6) for name in ("small", "large")]
    page = Opened(browser, write(folders, tmp_path / "both.html"), width=PHONE)
    assert page.figure("table").locator("tbody tr").count() == 8
    page.page.get_by_label("Results of").select_option(label="large")
    assert page.figure("table").locator("tbody tr").count() == 4
    assert page.page.evaluate("document.documentElement.scrollWidth") == PHONE
    page.close()
