"""The sentence that explains each policy on the page."""

import re
from dataclasses import dataclass

import pytest
import reports

import uds_core as uds
from uds_adapters.lab.report.folders import read
from uds_adapters.lab.report.policies import explanations, first_sentence
from uds_adapters.lab.report.view import view


@pytest.mark.parametrize("name", uds.names())
def test_every_registered_policy_has_one_sentence_that_stands_alone(name):
    sentence = first_sentence(name) or ""
    assert re.fullmatch(r"[A-Z][a-z]+ [^`\n]*\.", sentence)  # a verb first, so no other policy's sentence is needed
    assert " ".join((uds.get(name).__doc__ or "").split()).startswith(sentence.rstrip("."))
    assert ". " not in sentence


@pytest.mark.parametrize(
    "policies", [("random", "uds"), ("entropy", "fresh", "random"), ("uds:alpha=1", "full")], ids=str
)
def test_any_subset_is_explained_in_its_order(tmp_path, policies):
    results = read(reports.write(tmp_path / "one", policies=policies, records=40, steps=4))
    shown = view(results, name="one")["explanations"]
    assert shown == [[name, first_sentence(name)] for name in (policy.partition(":")[0] for policy in policies)]


def test_a_policy_is_explained_once_whatever_its_options_and_folders():
    shown = explanations(["small: uds:alpha=1", "small: random", "large: uds", "uds:dim=64,rows=all"])
    assert [name for name, _ in shown] == ["uds", "random"]


def test_what_is_not_installed_or_has_no_docstring_is_left_out(monkeypatch):
    @dataclass
    class Bare:
        keep: float = 0.5

    def undocumented():
        return Bare()

    monkeypatch.setattr(uds, "get", {"bare": Bare, "function": undocumented}.__getitem__)
    assert first_sentence("bare") is None
    assert first_sentence("function") is None
    monkeypatch.undo()
    assert explanations(["nosuchpolicy", "full"]) == [["full", first_sentence("full")]]
