"""README: its code runs, its figures were measured, its links lead to files."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def block(word):
    (found,) = [code for code in BLOCKS if word in code]
    return compile(found, f"README.md ({word})", "exec")


def test_there_are_a_few_examples_of_about_ten_lines():
    assert len(BLOCKS) == 5
    assert all(len([line for line in code.splitlines() if line.strip()]) <= 12 for code in BLOCKS)


def test_arrays():
    names: dict = {}
    exec(block("np.random"), names)
    import numpy as np

    import uds_core as uds

    dense = uds.nuclear_norm(names["hidden"] @ names["weight"].T)
    np.testing.assert_allclose(uds.nuclear_norm(names["head"](names["hidden"])), dense, rtol=1e-9)
    assert names["selection"].indices.shape == (2,)


def test_any_loop(capsys):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    names: dict = {}
    exec(block("BatchSelector"), names)
    assert len(names["batch"]["input_ids"]) == 8
    assert capsys.readouterr().out == "8 of 32\n" * 3
    assert "state.memory.rows" in names["select"].state_dict()


def test_trainer(tmp_path):
    transformers = pytest.importorskip("transformers")
    tiny = pytest.importorskip("tiny")
    args = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, report_to=[], use_cpu=True, save_strategy="no", dataloader_pin_memory=False
    )
    names = {"model": tiny.llama(), "args": args, "data": tiny.examples(32), "collator": tiny.collate}
    exec(block("import UDSTrainer"), names)
    assert names["trainer"].state.global_step == 2
    assert len(names["trainer"].selector.last_indices) == 2  # of 8 candidates


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")  # TRL sets the old name
def test_trl(tmp_path):
    pytest.importorskip("trl")
    from trl.trainer.sft_config import SFTConfig
    from trl_data import data, tokenizer

    tiny = pytest.importorskip("tiny")
    config = SFTConfig(
        str(tmp_path), max_steps=2, report_to=[], use_cpu=True, bf16=False, save_strategy="no",
        dataloader_pin_memory=False, gradient_checkpointing=False,
    )  # fmt: skip
    names = {"model": tiny.llama(), "config": config, "texts": data("padded", 32), "tokenizer": tokenizer()}
    exec(block("UDSSFTTrainer"), names)
    assert names["trainer"].state.global_step == 2
    assert len(names["trainer"].selector.last_indices) == 2  # of 8 candidates


@pytest.mark.filterwarnings("ignore")  # Lightning advises
def test_lightning(tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    from lightning_module import Module, loader

    monkeypatch.chdir(tmp_path)  # it writes where it stands
    names = {"module": Module(), "loader": loader(12)}
    exec(block("UDSCallback"), names)
    assert [len(batch["labels"]) for batch in names["module"].seen] == [2, 2]  # of 6 candidates


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (README.parent / target).exists(), target


def test_figures_are_those_of_the_study():
    text = README.read_text(encoding="utf-8")
    table = text.partition("## When it pays")[2].partition("## Install")[0]
    measured = (README.parent / "docs" / "pages" / "evidence.md").read_text(encoding="utf-8")
    figures = re.findall(r"\d+\.\d+", re.sub(r"4\.2M", "4.2 million", table))
    assert len(figures) >= 8
    assert not [figure for figure in figures if figure not in measured]
    scoring = text.partition("With a frozen head")[2].partition("## Does it pay")[0]
    measured = (README.parent / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert not [figure for figure in re.findall(r"\d[\d.,]*\d", scoring) if figure not in measured]


def test_the_command_has_the_options_that_are_shown():
    pytest.importorskip("typer")
    import typer.main

    from uds_adapters.lab.cli import app

    shown = README.read_text(encoding="utf-8").partition("\nuds compare")[2].partition("```")[0]
    command = vars(typer.main.get_command(app))["commands"]["compare"]
    known = {name for one in command.params for name in one.opts}
    assert set(re.findall(r"--[\w-]+", shown)) <= known
