"""Policies of other packages: found without being imported, imported when asked for, and named when they are broken."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import uds_core as uds
from uds_core import registry

BROKEN = "raise RuntimeError('no luck')"
GOOD = """
import uds_core as uds


class Second(uds.Random):
    pass


class NoPolicy:
    pass


number = 3
"""


def install(folder, package, points, **modules):
    """What an installer leaves: modules, and a folder that says what they declare."""
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    (about / "entry_points.txt").write_text(f"[{registry._GROUP}]\n{lines}\n", encoding="utf-8")
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code, encoding="utf-8")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages; what is registered from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_POLICIES", dict(registry._POLICIES))
    yield tmp_path
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def test_a_policy_is_found_by_name_and_imported_when_asked_for(site):
    before = uds.names()
    install(site, "theirs", {"second": "theirs_policies:Second"}, theirs_policies=GOOD)
    assert uds.names() == sorted([*before, "second"])
    assert "theirs_policies" not in sys.modules
    kind = uds.get("second")
    assert kind.__module__ == "theirs_policies"
    assert uds.get("second") is kind
    assert uds.name_of(kind()) == "second"
    selection, _ = kind(count=2).choose(None, {"length": np.ones(5, np.float32)})
    assert selection.indices.shape == (2,)


def test_a_broken_package_is_named_when_asked_for_and_never_before(site):
    install(site, "unlucky", {"bad": "unlucky_policies:Bad"}, unlucky_policies=BROKEN)
    assert "bad" in uds.names()
    assert uds.get("uds") is uds.UDS
    assert uds.name_of(uds.UDS()) == "uds"
    words = r"'bad' of the package unlucky \(unlucky_policies:Bad\) could not be loaded: RuntimeError: no luck"
    with pytest.raises(ImportError, match=words) as caught:
        uds.get("bad")
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(ValueError, match="unknown policy 'nope'; known: bad, "):
        uds.get("nope")


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        ("gone", "theirs_policies:Gone", ImportError, "'gone' of the package theirs .* could not be loaded: Attribute"),
        ("lost", "nowhere_at_all:Gone", ImportError, "could not be loaded: ModuleNotFoundError"),
        ("number", "theirs_policies:number", TypeError, "must be a class that makes policies, got 3"),
        ("My_Policy", "theirs_policies:Second", ValueError, "lower case without separators, got 'My_Policy'"),
    ],
)
def test_what_is_wrong_with_a_declaration_is_said(site, name, value, error, words):
    install(site, "theirs", {name: value}, theirs_policies=GOOD)
    with pytest.raises(error, match=words):
        uds.get(name)


def test_two_packages_of_one_name_are_both_named_and_ours_are_never_shadowed(site):
    points = {"second": "theirs_policies:Second", "uds": "theirs_policies:Second"}
    install(site, "theirs", points, theirs_policies=GOOD)
    install(site, "others", points)
    with pytest.raises(ValueError, match="several packages bring a policy 'second': others, theirs"):
        uds.get("second")
    assert uds.get("uds") is uds.UDS
    assert uds.names().count("uds") == 1


def test_a_module_may_register_its_policy_too(site):
    code = GOOD.replace("class Second", "@uds.register('second')\nclass Second")
    install(site, "theirs", {"second": "theirs_policies:Second"}, theirs_policies=code)
    assert uds.get("second").__name__ == "Second"


def test_what_has_no_name_is_none():
    assert uds.name_of(object()) is None


def test_the_example_of_the_docs_runs(site):
    page = (Path(__file__).parents[2] / "docs" / "pages" / "policies.md").read_text(encoding="utf-8")
    *_, code = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (table,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (group,), points = re.findall(r'entry-points\."(.*)"', table), dict(re.findall(r'^(\w+) = "(.*)"$', table, re.M))
    assert group == registry._GROUP
    install(site, "my-policies", points, my_policies=code)
    middle = uds.get("middleloss")(count=2, target=1.0)
    assert isinstance(middle, uds.Policy)
    logits, labels = np.random.default_rng(0).normal(size=(5, 4, 9)), np.ones((5, 4), np.int64)
    loss = uds.cross_entropy(logits, labels)
    logits[3, 0, 0] = np.nan
    selection, state = middle.choose(None, middle.examine(uds.Candidates(logits, labels=labels)))
    nearest = np.argsort(np.abs(loss - 1.0), kind="stable")
    assert selection.indices.tolist() == [i for i in nearest if i != 3][:2]
    assert uds.flatten(state) == {}


def test_a_policy_is_made_from_its_text():
    assert uds.make_policy("maxloss:keep=0.25") == uds.MaxLoss(keep=0.25)
    made = uds.make_policy("uds:alpha=auto,memory=16", keep=0.5, unknown=1)
    assert isinstance(made, uds.UDS)
    assert (made.keep, made.memory) == (0.5, 16)
    assert uds.make_policy("longest:count=2", keep=0.5) == uds.Longest(count=2)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nope", "unknown policy 'nope'"),
        ("uds:alpha", "expected options as `option=value`, got 'alpha'"),
        ("uds:dim=8,dim=9", "the option 'dim' comes twice"),
        ("uds:size=3", "uds has no option 'size'; it has keep, count"),
    ],
)
def test_a_text_that_describes_no_policy_is_refused(spec, words):
    with pytest.raises(ValueError, match=words):
        uds.make_policy(spec)
