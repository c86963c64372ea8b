"""Near-duplicates of a data set: those that an explicit comparison of all pairs finds; files, and odd input."""

import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from uds_adapters.lab.cli import app
from uds_adapters.lab.data.records import read
from uds_adapters.lab.duplicates import search as searching
from uds_adapters.lab.duplicates import sketches as sketching


def dedup(folder, records, *arguments, name="data.jsonl"):
    """Run the command on records, or on bytes; return its result and the rows of its file."""
    data = folder / name
    data.write_bytes(
        records if isinstance(records, bytes) else b"".join(json.dumps(r).encode() + b"\n" for r in records)
    )
    given = ["dedup", "--data", data, "--output", folder / "out.parquet", *arguments]
    result = CliRunner().invoke(app, [str(argument) for argument in given])
    rows = pq.read_table(folder / "out.parquet").to_pydict() if result.exit_code == 0 else {}
    return result, rows


def sentences(number, *, seed=0, words=30, vocabulary=400):
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(vocabulary)}" for _ in range(words)) for _ in range(number)]


def with_changes(text, changes, *, seed):
    rng, words = random.Random(seed), text.split()
    for _ in range(changes):
        words[rng.randrange(len(words))] = f"x{rng.randrange(10**6)}"
    return " ".join(words)


def test_near_duplicates_are_left_out_byte_for_byte(tmp_path):
    texts = sentences(40)
    texts += [texts[3], texts[5].upper(), with_changes(texts[7], 1, seed=1), with_changes(texts[9], 15, seed=2)]
    lines = [json.dumps({"prompt": t[:20], "completion": t[20:], "id": i}).encode() for i, t in enumerate(texts)]
    data = b"\r\n".join([lines[0], b"", *lines[1:]])
    result, rows = dedup(tmp_path, data, "--subset", tmp_path / "kept.jsonl", "--json")
    assert result.exit_code == 0, result.output
    assert rows["near_duplicate_of"] == 40 * [None] + [3, 5, 7, None]
    assert rows["line"] == [1, *range(3, 46)]
    assert rows["record"] == list(range(44))
    assert rows["similarity"][40:42] == [1.0, 1.0]
    assert 0.5 <= rows["similarity"][42] < 1.0
    assert rows["chosen"] == [original is None for original in rows["near_duplicate_of"]]
    kept = (tmp_path / "kept.jsonl").read_bytes()
    assert kept == b"".join(line + b"\r\n" for line in lines[:40]) + lines[43] + b"\n"
    reported = json.loads(result.stdout)
    assert (reported["records"], reported["near_duplicates"], reported["equal"], reported["kept"]) == (44, 3, 2, 41)


def all_pairs(sketches, threshold):
    """The same rule, each record compared with all before it that are kept."""
    numbers, n = sketches.numbers, len(sketches.words)
    originals = []
    for i in range(n):
        equal = [j for j in range(i) if sketches.exact[j] == sketches.exact[i]]
        others = np.array([j for j in range(i) if originals[j] < 0], int)
        limit = 2 + int(0.05 * (n - 1))
        specific = (numbers == numbers[i]).sum(axis=0) - 1 <= limit
        assert specific.sum() >= 4
        share = (numbers[others] == numbers[i])[:, specific].mean(axis=1) if len(others) else np.zeros(0)
        found = share.max(initial=0) >= threshold and sketches.words[i] > 0
        originals.append(int(others[share.argmax()]) if found else (equal[0] if equal else -1))
    return originals


def test_the_search_finds_what_a_comparison_of_all_pairs_finds(tmp_path):
    texts = sentences(150, seed=1)
    texts += [with_changes(texts[i % 50], changes, seed=i) for i, changes in enumerate([1, 1, 2, 2, 3] * 30)]
    random.Random(0).shuffle(texts)
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    path = tmp_path / "data.jsonl"
    records = read(path)
    sketches = sketching.joined([sketching.sketched(records[:200]), sketching.sketched(records[200:])])
    found = searching.search(sketches, threshold=0.5)
    expected = all_pairs(sketches, 0.5)
    assert 60 < sum(original >= 0 for original in expected) < 160
    assert [original >= 0 for original in expected] == (found.original >= 0).tolist()
    assert np.mean(found.original == expected) > 0.98  # of several originals, one as similar


def test_a_template_makes_no_near_duplicates(tmp_path):
    for length, options in ((200, []), (2000, ["--overwrite"])):
        template = " ".join(f"template{i}" for i in range(length))
        texts = sentences(60, seed=2, words=15, vocabulary=4000)
        texts += [texts[4] + " ", texts[5]]
        records = [{"prompt": template, "completion": text} for text in texts]
        _, rows = dedup(tmp_path, records, *options)
        assert rows["near_duplicate_of"] == 60 * [None] + [4, 5]


def test_one_record_many_times_is_kept_once(tmp_path):
    _, rows = dedup(tmp_path, [{"text": "the same"}] * 50)
    assert rows["near_duplicate_of"] == [None] + 49 * [0]
    _, rows = dedup(tmp_path, [{"text": f"the same again and again {n % 7}"} for n in range(70)], "--overwrite")
    assert sum(rows["chosen"]) <= 7


def test_empty_records_are_kept_and_repeat_nothing(tmp_path):
    records = [{"text": ""}, {"text": " \t"}, {"prompt": "", "completion": ""}, {"text": "a"}, {"text": "a"}]
    _, rows = dedup(tmp_path, records)
    assert rows["near_duplicate_of"] == [None, None, None, None, 3]
    assert rows["words"] == [0, 0, 0, 1, 1]
    _, rows = dedup(tmp_path, [{"text": "alone"}], "--overwrite")
    assert rows["chosen"] == [True]


def test_conversations_and_scripts_without_spaces(tmp_path):
    turns = [[{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}] for text in sentences(6)]
    _, rows = dedup(tmp_path, [{"messages": messages} for messages in [*turns, turns[2]]])
    assert rows["near_duplicate_of"] == 6 * [None] + [2]
    rng = random.Random(0)
    chinese = ["".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(60)) for _ in range(8)]
    changed = chinese[1][:30] + "一" + chinese[1][31:]
    _, rows = dedup(tmp_path, [{"text": text} for text in [*chinese, changed]], "--overwrite")
    assert rows["near_duplicate_of"] == 8 * [None] + [1]
    assert sketching.words("Ein Wort, 漢字x kaufen 3.5") == [
        "ein",
        "wort",
        ",",
        "漢",
        "字",
        "x",
        "kaufen",
        "3",
        ".",
        "5",
    ]


def test_the_first_records_alone(tmp_path):
    texts = sentences(5)
    _, rows = dedup(tmp_path, [{"text": text} for text in [*texts, *texts]], "--limit", 6)
    assert rows["near_duplicate_of"] == 5 * [None] + [0]


@pytest.mark.parametrize(
    ("records", "arguments", "words"),
    [
        (b"", (), "holds no records"),
        (b"\n \n", (), "holds no records"),
        (b'{"text": "a"}\n{"text": 3}\n', (), "data.jsonl:2"),
        (b'{"text": "a"}\n{"text": \n', (), "data.jsonl:2"),
        (b'{"other": "a"}\n', (), "--prompt-field"),
        (b'{"text": "a"}\n', ("--threshold", 0), "`threshold` must be a fraction in (0, 1]"),
        (b'{"text": "a"}\n', ("--threshold", "nan"), "`threshold` must be a fraction in (0, 1]"),
        (b'{"text": "a"}\n', ("--limit", 0), "limit"),
        (b'{"text": "a"}\n', ("--subset", "nowhere/kept.jsonl"), "no name for a file"),
    ],
)
def test_odd_input_is_an_error_and_writes_nothing(tmp_path, records, arguments, words):
    result, _ = dedup(tmp_path, records, *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "out.parquet").exists()


def test_files_are_not_overwritten_unasked(tmp_path):
    records = [{"text": "a b c"}]
    assert dedup(tmp_path, records)[0].exit_code == 0
    result, _ = dedup(tmp_path, records)
    assert result.exit_code == 2
    assert "--overwrite" in result.output
    assert dedup(tmp_path, records, "--overwrite")[0].exit_code == 0
    for other in (tmp_path / "data.jsonl", tmp_path / "out.parquet"):
        assert dedup(tmp_path, records, "--overwrite", "--subset", other)[0].exit_code == 2
    assert (tmp_path / "data.jsonl").read_bytes() == b'{"text": "a b c"}\n'


def test_other_files_and_formats_than_jsonl(tmp_path):
    same = {"question": "What has a trunk and never forgets anything?", "answer": "An elephant, they say."}
    records = [same, {"question": "Which town is it?", "answer": "Lima."}, same]
    columns = ["--columns", "prompt=question", "--columns", "completion=answer"]
    content = json.dumps(records, indent=1).encode()
    result, rows = dedup(tmp_path, content, *columns, "--subset", tmp_path / "rest.jsonl", name="data.json")
    assert result.exit_code == 0, result.output
    assert rows["near_duplicate_of"] == [None, None, 0]
    assert rows["line"] == [2, 6, 10]
    assert [json.loads(line) for line in (tmp_path / "rest.jsonl").read_text("utf-8").splitlines()] == records[:2]
