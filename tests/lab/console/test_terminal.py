"""One console; machines and people get output of their own."""

import json

import pytest

from uds_adapters.lab.console.terminal import bar, console, telling


def test_people_read_stdout_and_machines_nothing(capsys):
    with telling(machine=False) as tell:
        console.print("hello")
        tell({"a": 1})
    assert capsys.readouterr() == ("hello\n", "")


def test_with_json_one_object_stands_alone_on_stdout(capsys):
    with telling(machine=True) as tell:
        with bar("working", total=2) as reported:
            reported(2)
        console.print("hello")
        tell({"a": 1})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": 1}
    assert "hello" in err
    console.print("after")
    assert capsys.readouterr() == ("after\n", "")


def test_a_bar_appears_with_the_first_progress(capsys):
    def fail():
        with bar("working", total=2):
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert capsys.readouterr() == ("", "")
    with bar("working", total=2) as reported:
        reported(2)
    assert "working" in capsys.readouterr().out
