"""Policies in words."""

import numpy as np
import pytest

import uds_core as uds
from uds_adapters.lab.errors import LabError
from uds_adapters.lab.policy_spec import make_policy, pair, parse


def test_options_go_to_the_policies_that_take_them():
    assert isinstance(make_policy("full", keep=0.5, seed=3), uds.Full)
    assert make_policy("random", keep=0.5, seed=3) == uds.Random(keep=0.5, seed=3)


def test_words_become_options():
    assert parse("uds") == ("uds", {})
    assert parse("uds:alpha=auto, memory=4096,frobenius=0.5,temperature=null,centre=none") == (
        "uds",
        {"alpha": "auto", "memory": 4096, "frobenius": 0.5, "temperature": None, "centre": "none"},
    )
    policy = make_policy("uds:alpha=0.5,length=mean,seed=7,keep=0.125", keep=0.5, seed=3)
    assert isinstance(policy, uds.UDS)
    assert (policy.alpha, policy.length, policy.seed, policy.keep) == (0.5, "mean", 7, 0.125)


def test_a_budget_of_its_own_takes_the_place_of_keep():
    policy = make_policy("longest:count=3", keep=0.5, seed=0)
    assert policy == uds.Longest(count=3)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("best", r"unknown policy 'best'; known: .*uds"),
        ("uds:alpha", r"expected options as `option=value`, got 'alpha'"),
        ("uds:alpha=", r"expected options as `option=value`"),
        ("uds:dim=8,dim=9", r"the option 'dim' comes twice"),
        ("uds:size=3", r"uds has no option 'size'; it has keep, count"),
        ("uds:memory=many", r"policy 'uds:memory=many': `memory` must be .*, got 'many'"),
        ("uds:length=long", r"`length` must be one of 'none', 'sqrt', 'mean', got 'long'"),
    ],
)
def test_errors_name_the_policy_and_the_remedy(spec, words):
    with pytest.raises(LabError, match=words):
        make_policy(spec, keep=0.5, seed=0)


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 100_000], ids=["digits", "nesting"])
def test_values_that_python_cannot_hold(value):
    with pytest.raises(LabError):
        parse(f"uds:alpha={value}")
    with pytest.raises(LabError, match="`--trl` x: "):
        pair(f"x={value}", option="--trl")


@pytest.mark.parametrize("spec", ["targeted", "targeted:keep=0.5", "fresh:targeted", "rds"])
def test_a_target_comes_from_a_file(spec):
    with pytest.raises(LabError, match=r"needs samples of a target: name a file .* with `--target`"):
        make_policy(spec, keep=0.5, seed=0)
    if spec != "rds":
        assert make_policy(spec, keep=0.5, seed=0, provided={"target": np.ones(4)})
