"""One page, whole in itself."""

import re

from uds_adapters.lab.report import page


def results(*, measured=True, seeds=(0, 1)):
    seconds = {"scoring": 1.0, "forward_backward": 2.0, "rest": 0.5, "total": 3.5, "evaluation": 1.0}
    row = {
        "loss_before": 3.0 if measured else None,
        "loss": 2.0 if measured else None,
        "spread": 0.1 if measured and len(seeds) > 1 else None,
        "samples": 8.0,
        "tokens": {"trained": 100, "forwarded_for_scoring": 0},
        "seconds": seconds,
        "flagged": {"wrong": 0.25},
    }
    curve = [{"step": n, "samples": 4 * n, "seconds": 1.5 * n, "loss": 3.0 - n} for n in range(3)]
    return {
        "command": "uds compare --data '<b>.jsonl'",
        "verdict": "uds is <better>.",
        "configuration": {"keep": 0.25, "seeds": list(seeds), "template": "{prompt}\n{completion}", "limit": None},
        "versions": {"python": "3.11"},
        "summary": [{"policy": policy, **row} for policy in ("random", "uds")],
        "runs": [
            {"policy": p, "seed": s, "evaluations": curve if measured else []} for s in seeds for p in ("random", "uds")
        ],
    }


def test_nothing_is_loaded_and_the_script_is_there_once():
    text = page(results())
    assert not re.search(r"<(script|img|iframe)[^>]*\ssrc=|<link", text)
    assert text.count("plotly.js v") == 1
    assert text.count("Plotly.newPlot(") == 3


def test_words_of_the_user_are_escaped():
    text = page(results())
    assert "uds is &lt;better&gt;." in text
    assert "<b>.jsonl" not in text.split("<h2>")[0]


def test_charts_have_titles_and_units():
    text = page(results())
    for words in ("held-out loss (nats per token)", "samples trained on", "evaluation left out (s)", "seconds a run"):
        assert words in text
    assert r"{prompt}\n{completion}" in text


def test_a_policy_has_one_colour():
    text = page(results())
    lines = re.findall(r'"color":"(#[0-9a-f]{6})"[^{}]*\}[^{}]*"name":"(random|uds)"', text)
    dots = re.findall(r'background:(#[0-9a-f]{6})"></span>(random|uds)', text)
    assert len(dots) == 2
    assert len(lines) == 12  # in two charts, two seeds and their mean
    assert set(lines) == set(dots)


def test_without_held_out_data_only_time_is_drawn():
    text = page(results(measured=False, seeds=(0,)))
    assert text.count("Plotly.newPlot(") == 1
    assert "Where the time goes" in text
    assert "Held-out loss against" not in text
