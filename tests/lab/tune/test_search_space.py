"""The grammar of what is searched."""

import pytest

from uds_adapters.lab.errors import LabError
from uds_adapters.lab.training.settings import Settings
from uds_adapters.lab.tune.search_space import DEFAULT, Choices, Range, apply, default, read

SETTINGS = Settings(keep=0.25, batch_size=16)


def space(text, policy="uds"):
    return read(text, policy=policy, settings=SETTINGS)


def test_ranges_are_whole_where_the_option_is():
    assert space("alpha=0..4,memory=64..4096:log") == {
        "alpha": Range(low=0, high=4),
        "memory": Range(low=64, high=4096, log=True, whole=True),
    }
    assert [type(end) for end in space("memory=64..128")["memory"].ends()] == [int, int]
    assert space("learning_rate=1e-5..1e-3:log")["learning_rate"] == Range(low=1e-5, high=1e-3, log=True)


def test_choices_hold_numbers_and_words():
    found = space("alpha=[auto,0,0.5], length=[none,sqrt,mean],temperature=[null,0.5]")
    assert found["alpha"] == Choices(("auto", 0, 0.5))
    assert found["length"] == Choices(("none", "sqrt", "mean"))
    assert found["temperature"] == Choices((None, 0.5))


def test_values_are_neat_and_stay_within():
    assert Range(low=0.0, high=4.0).neat(1.23456) == 1.23
    assert Range(low=0.12345, high=4.0).neat(0.12346) == 0.12345
    assert Range(low=64, high=4096, whole=True).neat(1357) == 1357


def test_a_point_changes_policy_and_settings():
    policy, settings = apply({"alpha": 0.5, "keep": 0.125}, policy="uds:alpha=auto,dim=64", settings=SETTINGS)
    assert (policy, settings.keep, settings.batch_size) == ("uds:alpha=0.5,dim=64", 0.125, 16)
    assert apply({}, policy="uds", settings=SETTINGS) == ("uds", SETTINGS)
    assert apply({"temperature": None}, policy="uds", settings=SETTINGS)[0] == "uds:temperature=null"


def test_the_default_is_as_much_of_it_as_the_policy_has():
    assert default("uds") == DEFAULT
    assert default("uds:memory=64,alpha=1") == "keep=[0.125,0.25,0.5],length=[none,sqrt,mean]"
    assert list(space(default("maxloss"), "maxloss")) == ["keep"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alpha", "expected name=\\[a,b\\] or name=low..high, got 'alpha'"),
        ("alfa=0..1", "uds has no option 'alfa'; it has alpha, "),
        ("alpha=4..0", "with numbers low < high, got 4..0"),
        ("alpha=0..4:log", "low..high:log with numbers low < high"),
        ("memory=1.5..4", "with whole numbers low < high"),
        ("memory=a..b", "with whole numbers"),
        ("length=[none]", "expected two values or more, each once"),
        ("length=[none,none]", "expected two values or more, each once"),
        ("length=[none,long]", "`length` must be"),
        ("keep=0.5..2", "`keep` must be a fraction"),
        ("alpha=0..1,alpha=0..2", "'alpha' comes twice"),
        (" , ", "names nothing"),
    ],
)
def test_what_is_refused(text, said):
    with pytest.raises(LabError, match=said):
        space(text)
