"""The terminal's tables fit into 80 columns."""

import io

from rich.console import Console

from uds_adapters.lab.comparison.statistics import Summary
from uds_adapters.lab.comparison.tables import tables


def shown(**more):
    tokens = {"trained": 123_456.0, "forwarded_for_scoring": 9_876_543.0}
    seconds = {"scoring": 1234.5, "forward_backward": 1234.5, "rest": 123.4, "total": 2592.4, "evaluation": 1111.5}
    known = {"policy": "reference", "seeds": 2, "loss_before": 3.5, "loss": 2.0, "spread": 0.1, "samples": 7471.0}
    summary = Summary(**{**known, "tokens": tokens, "seconds": seconds, "flagged": {}, **more})
    console = Console(file=io.StringIO(), width=80)
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
