"""TRL's SFTTrainer with a policy: the gradient of a stock SFTTrainer that was fed the chosen samples, in every mode."""

from itertools import pairwise
from typing import Any

import loops
import pytest
import tiny

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")
import spawned  # noqa: E402
import trainer_losses  # noqa: E402
from transformers import TrainerCallback  # noqa: E402
from trl.trainer.sft_config import SFTConfig  # noqa: E402
from trl.trainer.sft_trainer import SFTTrainer  # noqa: E402
from trl_data import MODES, data, tokenizer  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters import batches  # noqa: E402
from uds_adapters.transformers import UDSTrainerMixin  # noqa: E402
from uds_adapters.trl import UDSSFTTrainer  # noqa: E402

# TRL sets the old name, and transformers asks for the new one
pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")

POLICY = uds.UDS(keep=0.5, memory=16, dim=16)


class Gradients(TrainerCallback):
    """Keeps the gradient of each optimizer step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        assert model is not None
        self.steps.append(torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None]))


class Recording(UDSSFTTrainer):
    """Keeps the candidates, and what was trained on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.candidates, self.kept, collate = [], [], self.data_collator

        def note(examples):
            self.candidates.append(collate(examples))
            return self.candidates[-1]

        self.data_collator = note

    def get_batch_samples(self, *args, **kwargs):
        kept, number = super().get_batch_samples(*args, **kwargs)
        self.kept += [{name: v.clone() if torch.is_tensor(v) else v for name, v in batch.items()} for batch in kept]
        return kept, number


class Fed(SFTTrainer):
    """A stock SFTTrainer whose loader yields given batches."""

    batches: Any = None

    def get_train_dataloader(self):
        return torch.utils.data.DataLoader(self.batches, batch_size=None, shuffle=False)


def trainer(
    folder,
    *,
    cls: Any = Recording,
    mode="padded",
    policy: Any = POLICY,
    model=None,
    scope=None,
    evaluation=None,
    **options,
):
    seen = Gradients()
    arguments = SFTConfig(
        **{
            "output_dir": str(folder),
            "per_device_train_batch_size": 8,
            "max_steps": 1,
            "learning_rate": 1e-2,
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            **MODES[mode],
            **options,
        }
    )
    return cls(
        model=tiny.llama() if model is None else model,
        args=arguments,
        train_dataset=data(mode),
        eval_dataset=evaluation,
        processing_class=tokenizer(),
        callbacks=[seen],
        **({} if policy is None else {"policy": policy}),
        **({} if scope is None else {"scope": scope}),
    ), seen


def far(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_gradient_is_that_of_a_stock_trainer_fed_the_chosen_samples(tmp_path, mode, accumulation):
    chosen, got = trainer(tmp_path, mode=mode, gradient_accumulation_steps=accumulation)
    chosen.train()
    stock, seen = trainer(tmp_path, cls=Fed, mode=mode, policy=None, gradient_accumulation_steps=accumulation)
    stock.batches = chosen.kept
    stock.train()
    assert len(chosen.kept) == accumulation
    assert 0 < chosen.selector.metrics["kept_tokens_fraction"] < 1
    assert far(got.steps[0], seen.steps[0]) < 1e-6
    assert chosen.state.log_history[0]["loss"] == pytest.approx(stock.state.log_history[0]["loss"], rel=1e-6)
    assert chosen.state.log_history[0]["num_tokens"] == stock.state.log_history[0]["num_tokens"]


@pytest.mark.parametrize("mode", ["padded", "bfd", "padding_free_64"])
def test_one_choice_for_a_whole_step(tmp_path, mode):
    options = {"mode": mode, "gradient_accumulation_steps": 3}
    chosen, got = trainer(tmp_path, scope="step", **options)
    chosen.train()
    stock, seen = trainer(tmp_path, cls=Fed, policy=None, **options)
    stock.batches = chosen.kept
    stock.train()
    assert len(chosen.kept) == 3
    assert far(got.steps[0], seen.steps[0]) < 1e-6


METRICS = ("loss", "entropy", "mean_token_accuracy", "num_tokens", "aux_loss")


@pytest.mark.parametrize(
    ("mode", "model"),
    [
        ("padded", trainer_losses.mixture),
        ("bfd", tiny.llama),
        pytest.param("padded", tiny.llama, marks=pytest.mark.slow),
        pytest.param("bfd", trainer_losses.mixture, marks=pytest.mark.slow),
    ],
)
def test_fewer_samples_than_micro_batches(tmp_path, mode, model):
    """The log tells of the chosen samples alone, and the loss of a mixture of experts counts as many steps."""
    options = {"mode": mode, "max_length": 24, "per_device_train_batch_size": 2}
    options |= {"include_num_input_tokens_seen": "all"}
    chosen, got = trainer(
        tmp_path,
        scope="step",
        policy=uds.Longest(count=2),
        model=model(),
        gradient_accumulation_steps=4,
        **options,
    )
    chosen.train()
    stock, seen = trainer(tmp_path, cls=Fed, policy=None, model=model(), gradient_accumulation_steps=2, **options)
    stock.batches = [batch for batch in chosen.kept if len(batch["labels"])]
    stock.train()
    assert [len(documents(batch)) for batch in stock.batches] == [1, 1]
    assert far(got.steps[0], seen.steps[0]) < 1e-6
    logs = [one.state.log_history[0] for one in (chosen, stock)]
    expected = {name: value for name, value in logs[1].items() if name in METRICS}
    assert len(expected) == (5 if model is trainer_losses.mixture else 4)
    assert {name: logs[0][name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert chosen.state.num_input_tokens_seen == stock.state.num_input_tokens_seen


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_two_processes_of_which_one_has_fewer_samples(tmp_path, count):
    """What the process without a sample computes for the other's sake shows in no metric."""
    options = {"imports": "trl.trainer.sft_trainer", "accumulation": 2, "count": count}
    found = spawned.all_well(spawned.run(loops.trl, 2, tmp_path, **options))
    kept = [one["kept"] for one in found]
    assert sum(map(len, kept)) == count
    steps = [[kept[0][0]]] if count == 1 else [[kept[0][0]], [kept[0][1], kept[1][0]]]
    stock, seen = trainer(tmp_path, cls=Fed, policy=None, gradient_accumulation_steps=len(steps))
    stock.batches = [batches.join(step) for step in steps]
    stock.train()
    expected = {name: value for name, value in stock.state.log_history[0].items() if name in METRICS}
    assert len(expected) == 4
    if trl.__version__.startswith("0.") and count > 1:  # the mean of the processes' means
        del expected["entropy"]
    for one in found:
        assert far(one["gradients"][0], seen.steps[0]) < 1e-6
        assert {name: one["log"][0][name] for name in expected} == pytest.approx(expected, rel=1e-5)


def documents(batch):
    """Token ids and labels of each sample of a batch, one by one, read independently of the library."""
    ids, labels = batch["input_ids"], batch["labels"]
    if "attention_mask" in batch:
        rows = [mask.bool() for mask in batch["attention_mask"]]
        return [(one[row].tolist(), targets[row].tolist()) for one, targets, row in zip(ids, labels, rows, strict=True)]
    starts = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), ids.shape[1]]
    pieces = [(ids[0, a:b].tolist(), labels[0, a:b].tolist()) for a, b in pairwise(starts)]
    return [(one, targets) for one, targets in pieces if any(target != -100 for target in targets)]


@pytest.mark.parametrize("mode", MODES)
def test_gradient_is_that_of_the_token_mean_over_the_chosen_documents(tmp_path, mode):
    """Each document alone, through the whole logits: nothing leaks between the documents of a packed row."""
    chosen, got = trainer(tmp_path, mode=mode, gradient_accumulation_steps=2)
    chosen.train()
    model, total, tokens = tiny.llama(), torch.zeros(()), 0
    first = int(hasattr(chosen, "_loss_shifts_labels"))  # older versions divide by labels at position 0 too
    for candidates, kept in zip(chosen.candidates, chosen.kept, strict=False):  # a loader looks one batch ahead
        every, some = documents(candidates), documents(kept)
        assert len(some) == len(every) // 2
        assert all(one in every for one in some)
        for ids, labels in some:
            number = sum(label != -100 for label in labels[1:])
            loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
            total, tokens = total + loss * number, tokens + sum(label != -100 for label in labels[first:])
    (total / tokens).backward()
    assert far(got.steps[0], torch.cat([p.grad.flatten() for p in model.parameters()])) < 1e-5
    assert chosen.state.log_history[0]["loss"] == pytest.approx(float(total.detach() / tokens), rel=1e-4)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_importance_weights_multiply_each_documents_loss(tmp_path, mode, accumulation):
    policy = uds.UDS(keep=0.5, memory=16, dim=16, temperature=2.0)
    options = {"mode": mode, "policy": policy, "scope": "step", "gradient_accumulation_steps": accumulation}
    run, seen = trainer(tmp_path, **options)
    run.train()
    examples = [one for batch in run.candidates[:accumulation] for one in documents(batch)]
    picks, importance = loops.drawn(run.selector.last)
    some = [{"input_ids": examples[i][0], "labels": examples[i][1]} for i in picks]
    number = sum(label != -100 for _, labels in examples for label in labels[1:])
    assert far(seen.steps[0], loops.explicit(some, importance, number)) < 1e-5


def test_importance_weights_do_not_go_with_a_loss_of_tokens_probabilities(tmp_path):
    with pytest.raises(ValueError, match=r"importance weights.*another loss \(`loss_type='dft'`\)"):
        trainer(tmp_path, policy=uds.UDS(keep=0.5, temperature=2.0), loss_type="dft")


def test_the_same_documents_are_chosen_in_every_form(tmp_path):
    """Padded, flattened, flattened and padded: three forms of the same batch."""
    chosen = []
    for mode in ("padded", "padding_free", "padding_free_64"):
        run, _ = trainer(tmp_path, mode=mode, max_steps=3, learning_rate=0.0)
        run.train()
        chosen.append([[ids for ids, _ in documents(batch)] for batch in run.kept])
    assert chosen[0] == chosen[1] == chosen[2]


@pytest.mark.parametrize("mode", ["padded", "bfd"])
def test_resuming_in_the_middle_of_an_epoch_is_exact_to_the_bit(tmp_path, mode):
    options: dict[str, Any] = {"mode": mode, "max_steps": 6, "save_strategy": "steps", "save_steps": 2}

    def make():
        model = tiny.llama(dropout=0.1)
        return trainer(tmp_path, model=model, per_device_train_batch_size=4, gradient_accumulation_steps=2, **options)[
            0
        ]

    straight, resumed = make(), make()
    straight.train()
    assert straight.state.epoch < 1.0 or mode == "bfd"
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [documents(batch) for batch in resumed.kept] == [documents(batch) for batch in straight.kept[4:]]
    assert len(resumed.kept) == 8
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for name, tensor in straight.selector.state_dict().items():
        assert torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(resumed.selector.state_dict()[name]))


def test_trls_options_choose_the_same_at_first(tmp_path):
    """Activation checkpointing, which TRL turns on by itself, and another loss."""
    chosen = []
    every: list[dict[str, Any]] = [{}, {"gradient_checkpointing": True}, {"loss_type": "dft"}]
    for options in every:
        run, _ = trainer(tmp_path, **options)
        run.train()
        chosen.append([documents(batch) for batch in run.kept])
    assert chosen[0] == chosen[1] == chosen[2]


def test_bfloat16_which_trl_turns_on_by_itself(tmp_path):
    run, _ = trainer(tmp_path, bf16=True, gradient_checkpointing=True, max_steps=2)
    run.train()
    assert [len(documents(batch)) for batch in run.kept] == [4, 4]


def test_lora_through_trls_own_argument(tmp_path):
    peft = pytest.importorskip("peft")

    class Lora(Recording):
        def __init__(self, *args, **kwargs):
            config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
            super().__init__(*args, peft_config=config, **kwargs)

    run, _ = trainer(tmp_path, cls=Lora, mode="prompts")
    run.train()
    assert [len(documents(batch)) for batch in run.kept] == [4]


def test_evaluation_is_not_selected_from(tmp_path):
    losses = []
    for cls, policy in ((Recording, POLICY), (SFTTrainer, None)):
        run, _ = trainer(tmp_path, cls=cls, policy=policy, evaluation=data("padded", 10))
        losses.append(run.evaluate()["eval_loss"])
    assert losses[0] == losses[1]


def test_the_class_is_both_and_says_what_it_is():
    assert issubclass(UDSSFTTrainer, UDSTrainerMixin)
    assert issubclass(UDSSFTTrainer, SFTTrainer)
    assert "policy" in (UDSSFTTrainer.__doc__ or "")
    import uds_adapters.trl

    with pytest.raises(AttributeError, match="has no attribute 'UDSDPOTrainer'"):
        _ = uds_adapters.trl.UDSDPOTrainer


@pytest.mark.parametrize("mode", list(MODES))
def test_predicted_scores_learn_from_every_sample_that_is_trained(tmp_path, mode):
    """The first choice is exact and teaches its pool; what the last step trains is not asked for any more."""
    policy = uds.Predicted("maxloss", keep=0.5, warmup=1, forget=1.0)
    options = {"max_steps": 3, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    made, _ = trainer(tmp_path, mode=mode, policy=policy, **options)
    made.train()
    sizes = [len(batches.view(batch)) for batch in made.kept[1:4]]
    state = made.selector.history.state
    assert float(state.learner.weight) == len(batches.view(made.candidates[0])) + sum(sizes)
    assert policy.pending(state) == sum(len(batches.view(batch)) for batch in made.kept[4:])
