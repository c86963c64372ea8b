"""`uds train`: through TRL, from a file or options, resumed bit for bit, and saved as what it is."""

import html
import json
import os
import shutil
import signal

import pytest
import yaml
from conftest import DATA, MODELS, shared
from safetensors.torch import load_file
from typer.testing import CliRunner

pytest.importorskip("trl")
from uds_adapters import audit
from uds_adapters.lab.cli import app
from uds_adapters.lab.demo import scenario
from uds_adapters.lab.train.job import last_checkpoint

QUICK = ["--batch-size", 8, "--steps", 4, "--keep", 0.5, "--threads", 1]


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = scenario.Sizes(train=48, heldout=8, texts=30, pretraining_steps=1)
    made = scenario.make(tmp_path_factory.mktemp("train"), sizes=sizes, seed=0)
    return ["--model", made.model, "--data", made.data, "--holdout", 0.25]


def uds(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def trained(*arguments):
    result = uds("train", *arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments):
    result = uds("train", *arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.replace("\u2502", " ").split())


def weights(folder):
    return load_file(next(folder.glob("*.safetensors")))


def same(a, b):
    a, b = weights(a), weights(b)
    return a.keys() == b.keys() and all(bool((a[name] == b[name]).all()) for name in a)


def remembered(folder):
    return folder / "checkpoints" / "checkpoint-6" / "uds.safetensors"


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def chosen(folder):
    return [(row["step"], row["id"], row["score"], row["chosen"]) for row in audit.read(folder / "audit.jsonl")]


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    """A run of full fine-tuning, and what was printed."""
    output = tmp_path_factory.mktemp("finished") / "out"
    return output, " ".join(trained(*source, *QUICK, "--output", output).output.split())


def test_a_whole_model_is_saved_and_said_to_be_one(source, finished, tmp_path):
    output, words = finished
    assert "36 training examples, 12 held out." in words
    assert "Trained for 4 steps, on 16 samples. Held-out loss: " in words
    assert "the whole model, all weights" in words
    found = read_json(output / "training.json")
    assert [step for step, _ in found["losses"]] == [0, 1, 2, 3, 4]
    assert [row["uds/kept_tokens_fraction"] < 1 for row in found["log"] if "loss" in row] == [True] * 4
    assert [sum(row[3] for row in chosen(output) if row[0] == step) for step in range(4)] == [4] * 4
    assert sorted(path.name for path in (output / "checkpoints").glob("checkpoint-*")) == ["checkpoint-4"]
    options = [*QUICK, "--steps", 1, "--model", output / "model", "--output", tmp_path / "again", "--json"]
    said = json.loads(trained(*source, *options).stdout)
    assert said["losses"][0][1] == pytest.approx(found["losses"][-1][1], abs=1e-6)
    assert said["saved"]["kind"] == "model"


def test_adapters_alone_are_saved_and_the_words_load_them(source, tmp_path):
    import peft
    import transformers

    result = trained(*source, *QUICK, "--lora", "--learning-rate", 0.1, "--output", tmp_path / "out")
    words = " ".join(result.output.split())
    assert "LoRA adapters only" in words
    assert "Nothing was merged" in words
    assert not (tmp_path / "out" / "model").exists()
    base = transformers.AutoModelForCausalLM.from_pretrained(source[1])
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path / "out" / "adapters"))
    assert all(bool((load_file(source[1] / "model.safetensors").get(n, t) == t).all()) for n, t in before.items())
    assert any(float(t.abs().sum()) > 0 for name, t in loaded.state_dict().items() if "lora_B" in name)


def test_a_file_of_options_which_the_command_line_overrides(source, tmp_path):
    file = tmp_path / "run.yaml"
    options = dict(zip(source[::2], source[1::2], strict=True))
    values = {name.lstrip("-"): str(value) for name, value in options.items()}
    values |= {"batch-size": 8, "steps": 2, "keep": 0.5, "lora": True, "learning_rate": "1e-3", "trl": {"optim": "sgd"}}
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    trained("--config", file, "--keep", 0.25, "--output", tmp_path / "out")
    kept = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text(encoding="utf-8"))
    assert (kept["keep"], kept["learning_rate"], kept["trl"], kept["lora"]) == (0.25, 0.001, ["optim=sgd"], True)
    assert len([row for row in chosen(tmp_path / "out") if row[3]]) == 2 * 2
    trained("--config", tmp_path / "out" / "config.yaml", "--output", tmp_path / "again")
    assert same(tmp_path / "out" / "adapters", tmp_path / "again" / "adapters")
    assert chosen(tmp_path / "out") == chosen(tmp_path / "again")


def test_a_page_shows_what_is_trained_on(source, tmp_path):
    result = trained(*source, "--batch-size", 8, "--steps", 1, "--threads", 1, "--output", tmp_path / "out")
    page = tmp_path / "out" / "data.html"
    assert f"What is trained on: {page}" in result.output.replace("\n", "")
    record = json.loads(source[3].read_text("utf-8").splitlines()[0])
    assert f"<mark>{html.escape(record['completion'])}&lt;/s&gt;</mark>" in page.read_text("utf-8")


def test_resuming_is_exact_to_the_bit(source, tmp_path, monkeypatch):
    """Ctrl-C in the third of six steps, amid an epoch; LoRA, dropout of which would tell, and a schedule."""
    options = [*source, *QUICK, "--steps", 6, "--lora", "--learning-rate", 0.01, "--save-every", 10]
    options += ["--accumulate", 2, "--start-step", 1, "--keep-schedule", "linear", "--keep-steps", 4]
    trained(*options, "--output", tmp_path / "straight")
    from uds_adapters.lab.training.run_callback import RunCallback

    ended = RunCallback.on_step_end

    def interrupting(self, args, state, control, **more):
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        ended(self, args, state, control, **more)

    monkeypatch.setattr(RunCallback, "on_step_end", interrupting)
    output = tmp_path / "stopped"
    stopped = uds("train", *options, "--output", output)
    assert stopped.exit_code == 130, stopped.output
    assert f"Stopped after step 3 of 6, with a checkpoint. Go on with: uds train --resume {output}" in " ".join(
        stopped.output.split()
    )
    assert not (output / "adapters").exists()
    monkeypatch.setattr(RunCallback, "on_step_end", ended)
    resumed = trained("--resume", output)
    assert "resumed from checkpoint-3" in resumed.output
    assert same(tmp_path / "straight" / "adapters", output / "adapters")
    assert chosen(tmp_path / "straight") == chosen(output)
    straight, stopped = (load_file(remembered(tmp_path / name)) for name in ("straight", "stopped"))
    assert straight.keys() == stopped.keys()
    for name, tensor in straight.items():
        assert tensor.numpy().tobytes() == stopped[name].numpy().tobytes()
    results = [read_json(tmp_path / name / "training.json") for name in ("straight", "stopped")]
    assert results[0]["losses"] == results[1]["losses"]
    assert results[0]["samples"] == results[1]["samples"]
    assert "is finished already" in trained("--resume", output).output


def test_what_a_resumed_run_may_not_change(finished, tmp_path):
    output, _ = finished
    said = refused("--resume", output, "--learning-rate", 0.1, "--keep", 0.25)
    assert "--keep, --learning-rate would make it another run" in said
    assert "--output would make" in refused("--resume", output, "--output", tmp_path / "other")
    assert "no config.yaml there" in refused("--resume", tmp_path)
    assert "is finished already" in trained("--resume", output, "--save-every", 1).output


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path):
    assert last_checkpoint(tmp_path) == (None, ())
    for step in (2, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}", encoding="utf-8")
    (tmp_path / "checkpoint-12" / "trainer_state.json").write_text('{"glob', encoding="utf-8")
    (tmp_path / "checkpoint-20").mkdir()
    damaged = (tmp_path / "checkpoint-20", tmp_path / "checkpoint-12")
    assert last_checkpoint(tmp_path) == (tmp_path / "checkpoint-10", damaged)


@pytest.mark.parametrize("killed", ["before the result", "in the last checkpoint", "in the first checkpoint"])
def test_a_killed_run_is_resumed_as_if_it_were_not(source, finished, tmp_path, killed):
    output = shutil.copytree(finished[0], tmp_path / "out")
    shutil.rmtree(output / "model")
    (output / "training.json").unlink()
    last = output / "checkpoints" / "checkpoint-4"
    said = "resumed from checkpoint-4."
    if killed != "before the result":
        shutil.copytree(last, output / "checkpoints" / "checkpoint-5")
        (output / "checkpoints" / "checkpoint-5" / "trainer_state.json").unlink()
        said = "resumed from checkpoint-4; checkpoint-5 was not written to its end and is deleted."
    if killed == "in the first checkpoint":
        shutil.rmtree(last)
        said = "held out; checkpoint-5 was not written to its end and is deleted, so the run starts from the beginning."
    assert said in " ".join(trained("--resume", output).output.split())
    assert same(output / "model", finished[0] / "model")
    assert chosen(output) == chosen(finished[0])
    results = [read_json(folder / "training.json") for folder in (output, finished[0])]
    assert results[0]["losses"] == results[1]["losses"]
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["checkpoint-4"]


def test_a_run_is_resumed_from_another_folder(source, tmp_path, monkeypatch):
    start, other = tmp_path / "start", tmp_path / "other"
    start.mkdir()
    other.mkdir()
    for path in (source[1], source[3]):
        (start / path.name).symlink_to(path)
    monkeypatch.chdir(start)
    options = ["--model", source[1].name, "--data", source[3].name, *source[4:], *QUICK, "--output", "out"]
    trained(*options)
    (start / "out" / "training.json").unlink()
    monkeypatch.chdir(other)
    assert "resumed from checkpoint-4" in trained("--resume", "../start/out").output
    (start / "out" / "training.json").unlink()
    assert "--data would make it another run" in refused("--resume", start / "out", "--data", source[1] / "config.json")
    moved = start.rename(tmp_path / "moved")
    assert "no folder" in refused("--resume", moved / "out")
    given = ["--model", moved / source[1].name, "--data", moved / source[3].name]
    assert "resumed from checkpoint-4" in trained("--resume", moved / "out", *given).output
    (moved / "out" / "training.json").unlink()
    monkeypatch.chdir(moved / "out")
    assert "resumed from checkpoint-4" in trained("--resume", ".").output


def test_other_forms_of_records(source, tmp_path):
    turns = [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4"}]
    lines = [json.dumps({"messages": turns}), json.dumps({"text": "Two and two make four."})] * 8
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(lines), encoding="utf-8")
    options = ["--model", source[1], "--data", data, "--holdout", 0, "--steps", 1, "--batch-size", 8]
    result = trained(*options, "--output", tmp_path / "out", "--no-audit", "--json")
    assert json.loads(result.stdout)["samples"] == 2
    assert json.loads(result.stdout)["losses"] == []
    assert not (tmp_path / "out" / "audit.jsonl").exists()


@pytest.mark.parametrize("form", ["packing", "padding_free"])
def test_documents_that_trl_packs(source, tmp_path, form):
    output = tmp_path / "out"
    trained(*source, *QUICK, "--steps", 2, "--trl", f"{form}=true", "--max-length", 64, "--output", output)
    rows = list(audit.read(output / "audit.jsonl"))
    assert 0 < sum(row["chosen"] for row in rows) < len(rows)


def test_an_epoch_of_packed_rows_is_one_pass(source, tmp_path):
    options = ["--epochs", 1, "--batch-size", 2, "--trl", "packing=true", "--max-length", 128, "--json", "--no-audit"]
    reported = json.loads(trained(*source, *options, "--output", tmp_path / "out").stdout)
    log = read_json(tmp_path / "out" / "training.json")["log"]
    assert 0.8 < max(row["epoch"] for row in log if "epoch" in row) < 1.3
    assert reported["steps"] < 36 // 2
    assert "rows that training examples are packed into" in refused(
        *source, *options[2:], "--max-length", 4096, "--output", tmp_path / "few"
    )


def test_overwriting_leaves_nothing_to_go_on_with(source, finished, tmp_path):
    output = shutil.copytree(finished[0], tmp_path / "out")
    assert "already holds files" in refused(*source, *QUICK, "--output", output)
    trained(*source, *QUICK, "--steps", 2, "--output", output, "--overwrite")
    assert [path.name for path in (output / "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    assert {row[0] for row in chosen(output)} == {0, 1}


def test_wrong_input(source, tmp_path):
    file = tmp_path / "run.yaml"
    for text, said in (
        ("keep: 0.25\nkep: 1\n", "unknown key 'kep'; known: accumulate, audit, batch_size, "),
        ("keep: 0.25\nkeep: 0.5\n", "the key 'keep' comes twice"),
        ("- keep\n", "expected one option a line"),
        ("keep: [\n", "is not YAML"),
        ("steps: many\n", "Invalid value for '--steps'"),
    ):
        file.write_text(text, encoding="utf-8")
        assert said in refused("--config", file, *source), said
    assert "Missing option '--model'" in refused("--keep", 0.5)
    assert "no file" in refused("--config", tmp_path / "none.yaml")
    for options, said in (
        (["--policy", "best"], "unknown policy 'best'"),
        (["--keep", 2], "`keep` must be a fraction in (0, 1]"),
        (["--scope", "all"], "`scope` must be micro or step"),
        (["--keep-schedule", "square"], "`keep_schedule` must be 'constant', 'linear' or 'cosine'"),
        (["--keep-initial", 0.5], "`keep_steps` and `keep_initial` change nothing with keep_schedule='constant'"),
        (["--start-step", -1], "`start_step` must be a whole number of at least 0"),
        (["--batch-size", 64], "`batch_size` counts candidates and is 64, more than the 36 training examples"),
        (["--trl", "bf16=true"], "an option of `uds train` sets it already"),
        (["--trl", "colour=blue"], "trl.SFTConfig has no such argument"),
        (["--trl", "packing"], "`--trl` must be name=value"),
        (["--trl", "optim=hope"], "hope"),
        (["--report-to", "pigeon"], "pigeon"),
        (["--policy", "random:count=2", "--keep-schedule", "linear"], "`keep`"),
        (["--checkpoints", 0], "`checkpoints` must be at least 1"),
    ):
        assert said in refused(*source, *options, "--output", tmp_path / "new"), said
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("lora", [[], ["--lora"]], ids=["full", "lora"])
def test_on_a_pretrained_model_and_real_data(tmp_path, lora):
    model, data = shared(MODELS, "textbook4m"), shared(DATA, "gsm8k")
    fields = ["--prompt-field", "question", "--completion-field", "answer", "--limit", 192, "--eval-limit", 32]
    options = ["--batch-size", 16, "--max-length", 256, "--learning-rate", 1e-3, "--threads", 1]
    result = trained(
        *("--model", model, "--data", data / "train.jsonl", *fields), *options, *lora, "--output", tmp_path, "--json"
    )
    losses = json.loads(result.stdout)["losses"]
    assert losses[-1][1] < losses[0][1]


@pytest.mark.filterwarnings("ignore:keep=.* of 1 candidate is all of them")
def test_batches_of_one_sample_are_audited_finished_and_resumed(source, tmp_path, monkeypatch):
    options = [*source, "--batch-size", 1, "--keep", 0.5, "--threads", 1, "--steps", 3]
    trained(*options, "--output", tmp_path / "straight")
    from uds_adapters.lab.training.run_callback import RunCallback

    ended = RunCallback.on_step_end

    def interrupting(self, args, state, control, **more):
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        ended(self, args, state, control, **more)

    monkeypatch.setattr(RunCallback, "on_step_end", interrupting)
    assert uds("train", *options, "--output", tmp_path / "stopped").exit_code == 130
    monkeypatch.setattr(RunCallback, "on_step_end", ended)
    trained("--resume", tmp_path / "stopped")
    assert chosen(tmp_path / "straight") == chosen(tmp_path / "stopped")
    assert [row[-1] for row in chosen(tmp_path / "stopped")] == [True] * 3
    assert same(tmp_path / "straight" / "model", tmp_path / "stopped" / "model")


def test_examples_are_on_disk_while_a_run_lasts(source, tmp_path, monkeypatch):
    from uds_adapters.lab.train.job import Job

    seen, run = [], Job.run

    def watched(self, **options):
        seen.extend(sorted(file.name for file in (tmp_path / "run" / "examples.tmp").iterdir()))
        return run(self, **options)

    monkeypatch.setattr(Job, "run", watched)
    left = tmp_path / "run" / "examples.tmp"
    left.mkdir(parents=True)  # by a run that was killed
    (left / "old.arrow").touch()
    trained(*source, *QUICK, "--output", tmp_path / "run")
    assert seen == ["held-out.arrow", "training.arrow"]
    assert not left.exists()
