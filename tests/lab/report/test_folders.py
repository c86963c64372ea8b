"""Folders of results in, one page out."""

import json
import re
import subprocess
import sys

import pytest
import reports
from typer.testing import CliRunner

from uds_adapters.lab.cli import app
from uds_adapters.lab.errors import LabError
from uds_adapters.lab.report.folders import join, read, write
from uds_adapters.lab.report.page import page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return reports.write(tmp_path_factory.mktemp("report") / "one", records=60, steps=6)


def views(text):
    return json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])


def uds(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_nothing_is_loaded_and_nothing_is_left_to_fill_in(folder):
    text = page(read(folder))
    assert not re.search(r"<(script|img|iframe|link)[^>]*\s(src|href)=(?!\"data:)", text)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert "@@" not in text
    assert "default-src 'none'" in text


def test_words_of_the_user_cannot_end_the_script_or_become_tags(folder):
    text = page(read(folder))
    assert "&lt;better&gt;" in text
    assert "<better>" not in text
    assert text.count("</script>") == 2
    assert views(text)[0]["command"].endswith("</script><b>")


def test_what_is_no_number_becomes_null(folder):
    results = read(folder)
    results["summary"][0]["loss"] = float("nan")
    assert views(page(results))[0]["summary"][0]["loss"] is None


def test_the_command_writes_the_page_anew(folder):
    for _ in range(2):
        result = uds("report", folder)
        assert result.exit_code == 0, result.output
    assert views((folder / "report.html").read_text(encoding="utf-8"))[0]["policies"] == list(reports.POLICIES)


def test_json_is_all_that_machines_read(folder, tmp_path):
    result = uds("report", folder, "--output", tmp_path / "page.html", "--json")
    reported = json.loads(result.stdout)
    assert reported["bytes"] == (tmp_path / "page.html").stat().st_size
    assert "Report:" in result.stderr


def test_a_page_that_was_named_is_not_written_over_unasked(folder, tmp_path):
    named = tmp_path / "page.html"
    named.write_text("mine", encoding="utf-8")
    assert uds("report", folder, "--output", named).exit_code == 2
    assert named.read_text(encoding="utf-8") == "mine"
    assert uds("report", folder, "--output", named, "--overwrite").exit_code == 0


def test_several_folders_are_joined(folder, tmp_path):
    other = reports.write(tmp_path / "two", policies=("random",), seeds=(0,), records=60, steps=6)
    reported = []
    page = write([folder, other], tmp_path / "both.html", after=lambda done, total: reported.append((done, total)))
    text = page.read_text(encoding="utf-8")
    together, one, two = views(text)
    assert reported == [
        (n, 8) for n in range(1, 9)
    ]  # two policies of the one leave an audit, for two seeds, in two views
    assert [one["name"], two["name"]] == ["one", "two"]
    assert together["policies"] == [*(f"one: {policy}" for policy in reports.POLICIES), "two: random"]
    assert "the same records" in together["verdict"][0]
    assert together["verdict"][1].startswith("one: ")
    assert together["records"]["total"] == 60
    assert len(together["overlap"]) == 5


def test_joined_folders_of_different_data_show_no_choices(folder, tmp_path):
    other = reports.write(tmp_path / "two", policies=("random",), records=50, steps=6)
    joined = join({"one": read(folder), "two": read(other)})
    view = views(page(joined))[0]
    assert "do not compare" in view["verdict"][0]
    assert view["records"]["rows"] == view["map"] == view["statistics"] == []
    assert view["overlap"] is view["lengths"] is None
    assert len(view["curves"]["policies"]) == 5


def test_folders_of_the_same_name_are_told_apart(folder, tmp_path):
    other = reports.write(tmp_path / "one", policies=("random",), records=60, steps=6)
    text = write([folder, other], tmp_path / "both.html").read_text(encoding="utf-8")
    assert [view["name"] for view in views(text)[1:]] == [str(folder), str(other)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no results.json in"),
        ("{", "cannot be read"),
        ("[]", "holds no results of a comparison"),
        ('{"runs": [], "summary": []}', "holds no results of a comparison"),
        ('{"schema": 3, "runs": [1], "summary": [1]}', "has schema 3, and this version reads up to 2"),
        ('{"schema": 2, "runs": [1], "summary": [1]}', "is damaged: each of its `runs` must have evaluations, policy"),
    ],
)
def test_what_is_no_result_is_said_so(tmp_path, content, said):
    if content is not None:
        (tmp_path / "results.json").write_text(content, encoding="utf-8")
    result = uds("report", tmp_path)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "report.html").exists()


def test_results_that_are_no_text_are_said_so(tmp_path):
    (tmp_path / "results.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(LabError, match="cannot be read"):
        read(tmp_path)


def test_a_damaged_audit_is_said_so(tmp_path):
    folder = reports.write(tmp_path / "one", records=40, steps=4)
    file = next((folder / "runs").glob("uds*seed0*"))
    file.write_text("nonsense\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    result = uds("report", folder)
    assert result.exit_code == 2
    assert "damaged at line 1" in " ".join(result.output.split())


def test_the_same_folder_twice_is_refused(folder, tmp_path):
    with pytest.raises(LabError, match="named twice"):
        write([folder, folder], tmp_path / "page.html")


def test_no_framework_is_needed(folder, tmp_path):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'plotly']));"
        "from uds_adapters.lab.cli import app; app()"
    )
    command = [sys.executable, "-c", code, "report", str(folder), "--output", str(tmp_path / "page.html")]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "page.html").stat().st_size > 10_000
