"""The page of policies: a card for each, and what it says of its needs is so."""

import re
from pathlib import Path

import numpy as np
import pytest

import uds_core as uds

PAGE = (Path(__file__).parents[2] / "docs" / "pages" / "policies.md").read_text(encoding="utf-8")
LINES = ("Name", "Score", "Cost", "Needs", "Mind", "Source")
CARDS = {
    title: dict(re.findall(r"- \*\*(\w+)\*\*: (.*?)(?=\n- \*\*|\n\n|\Z)", body, flags=re.DOTALL))
    for title, body in re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
}
POLICIES = {uds.get(name).__name__: name for name in uds.names()}


def test_every_policy_has_a_card_and_no_card_is_of_another():
    assert sorted(CARDS) == sorted(POLICIES)
    for title, card in CARDS.items():
        assert tuple(card) == LINES, title
        assert card["Name"] == f"`{POLICIES[title]}`"


def test_the_table_of_needs_names_every_policy_once():
    table = re.findall(r"^\| [\w ']+ \| ([\w, ]+) \|$", PAGE, flags=re.MULTILINE)
    named = [name for row in table for name in row.split(", ") if name != "policies"]
    assert sorted(named) == sorted(POLICIES)


def examined(policy, *without):
    """Whether the policy is content with candidates that lack something."""
    rng = np.random.default_rng(0)
    hidden, weight = rng.normal(size=(3, 4, 5)), rng.normal(size=(7, 5))
    logits, labels = uds.Head(weight)(hidden), np.ones((3, 4), np.int64)
    also = {"ids": np.arange(3), "reference_loss": np.ones(3), "labels": labels}
    also["validation"] = uds.Candidates(logits, labels=labels)
    given = {name: value for name, value in also.items() if name not in without}
    given["glance"] = rng.normal(size=(3, 8))
    given["ngram_counts"] = rng.integers(0, 9, size=(3, 64)).astype(np.float32)
    given["ngrams"] = rng.integers(0, 9, size=(3, 8), dtype=np.int32)
    given["layers"] = dict.fromkeys(policy.needs.layers, hidden)
    try:
        policy.examine(uds.Candidates(None if "logits" in without else logits, mask=np.ones((3, 4), bool), **given))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("title", sorted(POLICIES))
def test_what_the_card_says_it_needs_it_needs(title):
    policy, card = uds.get(POLICIES[title])(), CARDS[title]
    policy = uds.RDS(target=np.eye(2, 5)) if title == "RDS" else policy
    assert examined(policy)
    words = {"labels": "labels", "ids": "`ids`", "validation": "validation", "reference_loss": "`reference_loss`"}
    for name, word in words.items():
        said = word in card["Needs"] and not (name == "ids" and "Ledger" in card["Needs"])
        assert said is not examined(policy, name), name
    needs = policy.needs
    always = needs.logits and needs.scored_choices is None and not needs.shortlist
    never = not needs.forward_pass_at(0)
    assert ("no forward pass" in card["Cost"]) is (examined(policy, "logits") and never)
    assert examined(policy, "logits") is not always


@pytest.mark.parametrize("title", sorted(POLICIES))
def test_what_the_card_says_of_its_state_is_so(title):
    policy, needs = uds.get(POLICIES[title])(), CARDS[title]["Needs"]
    features = {name: np.ones(3, np.float32) for name in ("length", "loss", "utility")}
    features |= {"sketch": np.ones((3, 1024), np.float32), "id": np.arange(3), "glance": np.ones((3, 9), np.float32)}
    features |= {"ngrams": np.ones((3, 128), np.int32), "ngram_counts": np.ones((3, 1024), np.float32)}
    state = uds.flatten(policy.init(features))
    assert ("No state" in needs) is (not state)
    assert ("State" in needs) is bool(state)
    assert ("12 bytes" in needs) is any(name.endswith("ids") for name in state)
    assert ("4 MiB" in needs or "1024 numbers" in needs) is any(array.nbytes == 2**22 for array in state.values())
