"""The terminal's tables fit into 80 columns."""

import io

import pytest
from rich.console import Console

from uds_adapters.lab.comparison.statistics import Summary
from uds_adapters.lab.comparison.tables import tables


def shown(width=80, **more):
    tokens = {"trained": 123_456.0, "forwarded_for_scoring": 9_876_543.0}
    seconds = {"scoring": 1234.5, "forward_backward": 1234.5, "rest": 123.4, "total": 2592.4, "evaluation": 1111.5}
    known = {"policy": "reference", "seeds": 2, "loss_before": 3.5, "loss": 2.0, "spread": 0.1, "samples": 7471.0}
    summary = Summary(**{**known, "tokens": tokens, "seconds": seconds, "flagged": {}, **more})
    console = Console(file=io.StringIO(), width=width)
    console.print(*tables([summary, summary]), sep="\n")
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_everything_is_there():
    text = shown()
    for cell in (
        "reference",
        "2.000 (0.100)",
        "7471",
        "123.5k",
        "9.9M",
        "1234.5",
        "2592.4",
        "1111.5",
        "before training 3.500",
    ):
        assert cell in text
    assert "\u2026" not in text


def test_nothing_held_out_and_a_single_seed():
    assert "(" not in shown(spread=None, seeds=1)
    assert "One seed" in shown(spread=None, seeds=1)
    assert "before training" not in shown(loss=None, loss_before=None, spread=None)


def test_who_diverged_has_no_number():
    text = shown(loss=None, spread=None, diverged=1)
    assert "diverged" in text
    assert "Means over seeds" in text


def test_flags_have_a_table_of_their_own():
    assert "wrong %" in shown(flagged={"wrong": 0.25})
    assert "known" not in shown()


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize(
    "policy", ["predicted:entropy,warmup=4", "uds:alpha=auto,in_batch=greedy,replace=reservoir,memory=512", "x" * 70]
)
def test_long_names_are_wrapped_and_no_number_is_cut(policy, width):
    text = shown(width=width, policy=policy)
    assert "\u2026" not in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    row = next(number for number, line in enumerate(lines) if "2.000 (0.100)" in line)
    assert lines[row].split()[1:] == [
        "2.000",
        "(0.100)",
        "7471",
        "123.5k",
        "9.9M",
        "1234.5",
        "1234.5",
        "123.4",
        "2592.4",
        "1111.5",
    ]
    rest = [line.split()[0] for line in lines[row + 1 :] if len(line.split()) == 1]
    assert (lines[row].split()[0] + "".join(rest)).startswith(policy)
