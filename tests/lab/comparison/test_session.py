"""What is printed while runs are under way."""

import pytest

from uds_adapters.lab.comparison import session
from uds_adapters.lab.comparison.session import _shown, duration


def test_after_the_first_run_comes_an_estimate_of_the_rest(capsys, monkeypatch):
    times = iter((0.0, 90.0, 90.0))
    monkeypatch.setattr(session.time, "perf_counter", lambda: next(times))
    with _shown(5, 2, jobs=2) as progress:
        progress("full", 0, 2)  # finished in an earlier call
        progress("uds", 0, 1)
        progress("uds", 0, 2)
        progress("uds", 0, 2)
    said = " ".join(capsys.readouterr().out.split())
    assert "uds, seed 0, took 90 s with its evaluations; at that speed the other 3 runs take about 2 min." in said


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
