"""A data set scored: streaming, resumed, shared among processes, and the best of it."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import spawned
import torch
from conftest import DATA, shared
from typer.testing import CliRunner

from uds_adapters.lab.cli import app
from uds_adapters.lab.data import jsonl
from uds_adapters.lab.data.encoding import Collator, Encoder, Example, pad_id
from uds_adapters.lab.data.records import read
from uds_adapters.lab.data.summary import Summary
from uds_adapters.lab.demo import scenario
from uds_adapters.lab.errors import LabError
from uds_adapters.lab.models import load_model, load_tokenizer, with_lora
from uds_adapters.lab.score import choose
from uds_adapters.lab.score import scorer as lab
from uds_adapters.lab.score.window_store import ScoredRecords, ScoredWindow, WindowStore

RECORDS = 60


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = scenario.Sizes(train=RECORDS, heldout=8, texts=30, pretraining_steps=2)
    return scenario.make(tmp_path_factory.mktemp("score"), sizes=sizes, seed=0)


def uds(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def scored(source, folder, *arguments, name="scores.parquet"):
    options = ["--model", source.model, "--data", source.data, "--window", 16, "--max-length", 128]
    result = uds("score", *options, "--output", folder / name, *arguments)
    assert result.exit_code == 0, result.output
    return result, pq.read_table(folder / name).to_pydict()


def loss_by_hand(source):
    """The mean loss of every record, one at a time and by the model itself."""
    tokenizer, model = load_tokenizer(source.model), load_model(source.model)
    examples, _ = Encoder(tokenizer=tokenizer, max_length=128)(read(source.data))
    losses = []
    for example in examples:
        batch = Collator(pad_id(tokenizer))([example])
        batch.pop("index")
        losses.append(float(model(**batch).loss.detach()))
    return losses, examples


def test_scores_at_a_layer(source, tmp_path):
    _, whole = scored(source, tmp_path, "--policy", "uds")
    _, deep = scored(source, tmp_path, "--policy", "uds", "--depth", 1, "--overwrite")
    layers = load_model(source.model).config.num_hidden_layers
    _, full = scored(source, tmp_path, "--policy", "uds", "--depth", layers, "--overwrite")
    assert full["utility"] == whole["utility"]
    assert deep["utility"] != whole["utility"]
    about = json.loads(pq.read_schema(tmp_path / "scores.parquet").metadata[b"uds"])
    assert about["depth"] == layers
    common = ["score", "--model", source.model, "--data", source.data, "--output", tmp_path / "other.parquet"]
    for wrong, message in ((["--depth", 99], "`depth` must be a number of"), (["--depth", 1, "--loss"], "give one of")):
        refused = uds(*common, *wrong)
        assert refused.exit_code == 2
        assert message in " ".join(refused.output.split())


def test_every_record_has_its_numbers(source, tmp_path):
    result, columns = scored(source, tmp_path, "--loss", "--keep", "0.2", "--json")
    losses, examples = loss_by_hand(source)
    assert columns["record"] == list(range(RECORDS))
    assert columns["line"] == list(range(1, RECORDS + 1))
    assert columns["tokens"] == [len(e["input_ids"]) for e in examples]
    assert columns["trained_tokens"] == [sum(label != -100 for label in e["labels"][1:]) for e in examples]
    assert columns["loss"] == pytest.approx(losses, rel=1e-4)
    assert all(value is not None for name in ("score", "utility", "diversity") for value in columns[name])
    assert sum(columns["chosen"]) == 12
    assert [number is not None for number in columns["round"]] == columns["chosen"]
    reported = json.loads(result.stdout)
    assert reported["records"] == reported["scored"] == RECORDS
    assert (reported["chosen"], reported["left_out"], reported["subset"]) == (12, 0, None)
    assert not (tmp_path / "scores.parquet.parts").exists()
    about = json.loads(pq.read_schema(tmp_path / "scores.parquet").metadata[b"uds"])
    assert (about["policy"], about["max_length"]) == ("uds", 128)


def test_batches_of_any_size_give_the_same(source, tmp_path):
    _, many = scored(source, tmp_path, "--batch-tokens", 4000, name="many")
    _, one = scored(source, tmp_path, "--batch-tokens", 1, "--window", 7, name="one")
    assert many["utility"] == pytest.approx(one["utility"], rel=1e-4)
    assert many["chosen"] == one["chosen"]


def test_the_subset_is_the_best_lines_as_they_stand(source, tmp_path):
    lines = source.data.read_bytes().splitlines()
    odd = tmp_path / "odd.jsonl"  # blank lines, spaces, other ends of line, none at the end
    odd.write_bytes(b"\n\n".join(line.replace(b'{"', b'{ "') + b"\r" for line in lines))
    _, columns = scored(
        source, tmp_path, "--data", odd, "--policy", "maxloss", "--keep", "9", "--subset", tmp_path / "best"
    )
    losses, _ = loss_by_hand(source)
    best = sorted(sorted(range(RECORDS), key=lambda i: -losses[i])[:9])
    assert [i for i, chosen in enumerate(columns["chosen"]) if chosen] == best
    kept = odd.read_bytes().split(b"\n")
    assert (tmp_path / "best").read_bytes() == b"".join(kept[2 * i] + b"\n" for i in best)
    assert columns["line"] == list(range(1, 2 * RECORDS, 2))


@pytest.mark.parametrize("policy", ["random", "longest", "divbs", "maxgrad", "entropy", "lossdrop", "reference"])
def test_any_policy(source, tmp_path, policy):
    _, columns = scored(source, tmp_path, "--policy", policy, "--limit", 20, "--keep", 5)
    assert sum(columns["chosen"]) == 5
    assert None not in columns["score"]


def test_records_that_cannot_be_scored_have_a_row_without_numbers(source, tmp_path):
    lines = source.data.read_text(encoding="utf-8").splitlines()
    lines[3] = json.dumps({"prompt": "many words " * 200, "completion": "never seen"})
    (tmp_path / "d.jsonl").write_text("\n".join(lines), encoding="utf-8")
    result, columns = scored(source, tmp_path, "--data", tmp_path / "d.jsonl", "--keep", "1.0")
    assert "59 of 60 records scored, 1 left out, whose prompt alone fills 128 tokens; 59 chosen." in " ".join(
        result.output.split()
    )
    assert columns["chosen"] == [i != 3 for i in range(RECORDS)]
    assert (columns["score"][3], columns["tokens"][3], columns["trained_tokens"][3]) == (None, None, 0)


def test_numbers_that_a_policy_reads_come_from_the_records(source, tmp_path):
    records = [json.loads(line) for line in source.data.read_text(encoding="utf-8").splitlines()]
    for number, record in enumerate(records):
        record["reference_loss"] = number / 10
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    _, columns = scored(source, tmp_path, "--data", tmp_path / "d.jsonl", "--policy", "rholoss")
    assert columns["reference_loss"] == pytest.approx([number / 10 for number in range(RECORDS)])
    excess = [loss - number / 10 for number, loss in enumerate(columns["loss"])]
    assert columns["score"] == pytest.approx(excess, abs=1e-5)


def test_adapters_are_put_on(source, tmp_path):
    model = with_lora(load_model(source.model), rank=2, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.1)
    model.save_pretrained(tmp_path / "adapters")
    _, plain = scored(source, tmp_path, "--loss", "--limit", 8, name="plain")
    _, changed = scored(source, tmp_path, "--loss", "--limit", 8, "--adapter", tmp_path / "adapters", name="changed")
    assert all(abs(a - b) > 1e-3 for a, b in zip(plain["loss"], changed["loss"], strict=True))


def test_an_interrupted_run_goes_on(source, tmp_path, monkeypatch):
    _, whole = scored(source, tmp_path, name="whole")
    looked, once = [], lab.WindowScorer.__call__

    def stopping(self, window, *, progress=None):
        if len(looked) == 2:
            raise KeyboardInterrupt
        looked.append(window.record)
        return once(self, window, progress=progress)

    monkeypatch.setattr(lab.WindowScorer, "__call__", stopping)
    options = ["--model", source.model, "--data", source.data, "--window", 16, "--max-length", 128]
    result = uds("score", *options, "--output", tmp_path / "again")
    assert result.exit_code == 130, result.output
    assert "2 of 4 windows are saved" in " ".join(result.output.split())
    assert not (tmp_path / "again").exists()
    refused = uds("score", *options, "--loss", "--output", tmp_path / "again")
    assert refused.exit_code == 2
    assert "interrupted run with another loss: go on with the options of that run" in " ".join(refused.output.split())
    monkeypatch.setattr(
        lab.WindowScorer, "__call__", lambda self, w, progress=None: (looked.append(w.record), once(self, w))[1]
    )
    _, again = scored(source, tmp_path, name="again")
    assert looked == [0, 16, 32, 48]  # none twice
    assert again == whole


def test_an_interrupted_choice_goes_on_too(source, tmp_path, monkeypatch):
    def stopping(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(choose, "choose", stopping)
        result = uds("score", "--model", source.model, "--data", source.data, "--output", tmp_path / "s", "--limit", 8)
    assert result.exit_code == 130, result.output
    assert "All windows are saved" in result.output
    assert not (tmp_path / "s").exists()
    _, columns = scored(source, tmp_path, "--window", 512, "--max-length", 512, "--limit", 8, name="s")
    assert columns["record"] == list(range(8))


def test_streaming_holds_one_window(source, monkeypatch):
    """No more records are parsed than a window has."""
    held, most = [], []
    parse = lab.data.parse
    monkeypatch.setattr(lab.data, "parse", lambda *a, **k: (held.append(1), parse(*a, **k))[1])
    scorer = lab.WindowScorer(source, lab.Scoring(policy="random", window=8), device=torch.device("cpu"))
    for window in jsonl.windows(source.data, size=8):
        held.clear()
        scorer(window)
        most.append(len(held))
    assert max(most) == 8


def test_batches_hold_similar_lengths_within_the_budget():
    examples = [Example(index=0, input_ids=[0] * n, labels=[]) for n in (5, 9, 2, 40, 8, 3)]
    batches = list(lab.by_length(examples, tokens=20))
    assert batches == [[3], [1, 4], [0, 5, 2]]


def shared_job(folder: Path, *, arguments: list[str]) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


@pytest.mark.slow
def test_two_processes_share_the_work(source, tmp_path):
    _, alone = scored(source, tmp_path, name="alone")
    options = ["--model", source.model, "--data", source.data, "--window", 16, "--max-length", 128]
    arguments = ["score", *options, "--output", tmp_path / "two", "--subset", tmp_path / "best"]
    reported = spawned.all_well(
        spawned.run(shared_job, 2, tmp_path / "ranks", arguments=[str(argument) for argument in arguments])
    )
    assert [code for code, _ in reported] == [0, 0], reported
    assert "share of process 1 of 2" in reported[0][1]
    assert reported[1][1] == ""
    two = pq.read_table(tmp_path / "two").to_pydict()
    assert two["utility"] == pytest.approx(alone["utility"], rel=1e-6)
    assert two["chosen"] == alone["chosen"]
    assert len((tmp_path / "best").read_bytes().splitlines()) == 15


def test_wrong_input_is_told_and_leaves_nothing(source, tmp_path):
    (tmp_path / "broken.jsonl").write_bytes(source.data.read_bytes() + b'{"prompt"\n')
    (tmp_path / "latin.jsonl").write_bytes(source.data.read_bytes() + b'{"prompt": "\xe9", "completion": "a"}\n')
    (tmp_path / "there").touch()
    fine = {"--model": source.model, "--data": source.data, "--output": tmp_path / "new"}
    before = set(tmp_path.iterdir())
    for changed, said in (
        ({"--data": tmp_path / "broken.jsonl"}, "broken.jsonl:61: this line is not JSON"),
        ({"--data": tmp_path / "latin.jsonl"}, "latin.jsonl:61 is not UTF-8 text"),
        ({"--data": tmp_path / "none.jsonl"}, "no file"),
        ({"--prompt-field": "question"}, "expected the fields 'question' and 'completion'"),
        ({"--model": tmp_path / "none"}, "no folder"),
        ({"--policy": "best"}, "unknown policy 'best'"),
        ({"--policy": "greats"}, "the policy 'greats' cannot score these records"),
        ({"--policy": "rholoss"}, "reads the number 'reference_loss' of each record, got None"),
        ({"--policy": "full"}, "'full' has no say in how many it keeps"),
        ({"--policy": "progress"}, "'progress' learns from training, and nothing is trained here"),
        ({"--policy": "lossema:losses=trained"}, "'lossema' learns from training, and nothing is trained here"),
        ({"--keep": "100"}, "`keep` asks for 100 records, and only 60"),
        ({"--keep": "2.0"}, "`keep` must be a fraction"),
        ({"--max-length": 2}, "no record has a completion within `max_length` = 2"),
        ({"--output": tmp_path / "there"}, "already there: name another file"),
        ({"--output": tmp_path / "no" / "folder"}, "no name for a file"),
        ({"--subset": source.data}, "is the data set itself"),
        ({"--adapter": tmp_path}, "no adapter_config.json"),
        ({"--window": 0}, "`window` must be at least 1"),
    ):
        options = [part for option in (fine | changed).items() for part in option]
        result = uds("score", *options, "--limit", 61)
        assert result.exit_code == 2, (said, result.output)
        assert said in " ".join(result.output.split()), (said, result.output)
        assert "Traceback" not in result.output
        assert not (tmp_path / "new").exists()
    left = set(tmp_path.iterdir()) - before
    assert {path.name for path in left} <= {"new.parts"}  # finished windows, to go on with


@pytest.mark.slow
def test_on_a_pretrained_model(stories, tmp_path):
    data = shared(DATA, "gsm8k") / "train.jsonl"
    fields = ["--prompt-field", "question", "--completion-field", "answer"]
    options = ["--model", stories, "--data", data, *fields, "--limit", 200, "--keep", 20]
    result = uds("score", *options, "--output", tmp_path / "s", "--subset", tmp_path / "best")
    assert result.exit_code == 0, result.output
    best = (tmp_path / "best").read_bytes().splitlines()
    assert len(best) == 20
    lines = data.read_bytes().splitlines()
    assert all(line in lines[:200] for line in best)
    columns = pq.read_table(tmp_path / "s").to_pydict()
    assert sum(columns["chosen"]) == 20
    assert None not in columns["utility"]


def test_windows_of_another_run_are_refused_when_they_are_read(source, tmp_path):
    made = [WindowStore(tmp_path / name, {"policy": name}) for name in ("mine", "other")]
    for store in made:
        store.claim(write=True)
        store.save(0, ScoredWindow(rows=one_row(), features={"score": torch.ones(1)}, summary=Summary(length=8)))
    assert made[0].pool(1).features["score"].tolist() == [1.0]
    (tmp_path / "other" / "00000000.parquet").replace(tmp_path / "mine" / "00000000.parquet")
    with pytest.raises(LabError, match=r"00000000\.parquet was scored by another run: delete it"):
        made[0].pool(1)
    (tmp_path / "mine" / "00000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(LabError, match=r"00000000\.parquet cannot be read"):
        made[0].pool(1)


def one_row():
    values = {name: np.ones(1, dtype=np.int64) for name in ScoredRecords._fields}
    return ScoredRecords(**{**values, "left_out": np.array([""])})


def test_all_answers_are_scored_with_train_on_all(source, tmp_path):
    turns = [
        {"role": r, "content": c} for r, c in (("user", "q"), ("assistant", "yes"), ("user", "r"), ("assistant", "no"))
    ]
    data = tmp_path / "chats.jsonl"
    data.write_text(f"{json.dumps({'messages': turns})}\n" * 4, encoding="utf-8")
    options = ["--data", data, "--policy", "longest", "--keep", "0.5"]
    _, last = scored(source, tmp_path, *options, name="last.parquet")
    _, every = scored(source, tmp_path, *options, "--train-on", "all", name="all.parquet")
    assert every["tokens"] == last["tokens"]
    assert all(a > b for a, b in zip(every["trained_tokens"], last["trained_tokens"], strict=True))
    assert "must be last or all" in uds("score", "--model", source.model, *options, "--train-on", "first").output
