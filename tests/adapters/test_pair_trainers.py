"""TRL's pair trainers: whole pairs are chosen, and trained as the stock trainer trains them."""

from typing import Any

import pytest
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

import uds_core as uds  # noqa: E402
from uds_adapters.transformers import UDSTrainerMixin  # noqa: E402

pytestmark = [
    pytest.mark.skipif(trl.__version__ < "1", reason="below TRL 1.0, batches of pairs have another form"),
    pytest.mark.filterwarnings("ignore"),
]
SIZES = [(1, 7), (5, 2), (3, 3), (6, 4), (2, 2), (7, 1), (4, 6), (2, 5)]
ARGUMENTS: Any = {"max_steps": 1, "logging_steps": 1, "max_grad_norm": 0.0, "report_to": [], "use_cpu": True}
ARGUMENTS |= {"bf16": False, "disable_tqdm": True, "save_strategy": "no", "train_sampling_strategy": "sequential"}
ARGUMENTS |= {"learning_rate": 0.01}


def pairs(**more: Any) -> list[dict[str, Any]]:
    """Text of words `w3`, `w4` and so on; `more`: columns."""
    rng = torch.Generator().manual_seed(0)

    def text(number: int) -> str:
        return " " + " ".join(f"w{word}" for word in torch.randint(3, tiny.VOCAB, (number,), generator=rng).tolist())

    rows = [{"prompt": text(3), "chosen": text(a), "rejected": text(b)} for a, b in SIZES]
    return [row | {name: values[i] for name, values in more.items()} for i, row in enumerate(rows)]


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{f"w{i}": i for i in range(3, tiny.VOCAB)}}
    made: Any = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")


class Recorder(transformers.TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model: Any = None, **_):
        self.gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def train(kind, folder, rows, *, model, batch=8, policy=None, given=(), selection=None, scope="micro", **settings):
    """Return the trainer, its gradients and its first log; without a policy that of the stock trainer."""
    base: Any = getattr(trl, f"{kind}Trainer")
    arguments = getattr(trl, f"{kind}Config")(str(folder), per_device_train_batch_size=batch, **ARGUMENTS, **settings)
    recorder, extra = Recorder(), {}
    if policy is not None:
        base, extra = type("Selecting", (UDSTrainerMixin, base), {}), {"policy": policy, "scope": scope}
        extra |= {} if selection is None else {"selection": selection}
    options: Any = {"processing_class": tokenizer(), "callbacks": [recorder], **dict(given), **extra}
    trainer = base(model=model, args=arguments, train_dataset=datasets.Dataset.from_list(rows), **options)
    trainer.train()
    return trainer, recorder.gradients, trainer.state.log_history[0]


def check_same(ours, stock):
    (_, gradients, log), (_, expected, expected_log) = ours, stock
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=2e-4, atol=1e-7, msg=name)
    for name, value in expected_log.items():
        if name != "epoch":
            assert log[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def reward_model() -> Any:
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=tiny.VOCAB, pad_token_id=0, num_labels=1, **size)
    return transformers.LlamaForSequenceClassification(config)


@pytest.mark.parametrize(
    ("policy", "settings"),
    [
        (uds.UDS(count=3, dim=16), {}),
        (uds.MaxLoss(count=1), {"loss_type": ["ipo"]}),
        pytest.param(uds.Longest(count=5), {"precompute_ref_log_probs": True}, marks=pytest.mark.slow),
        pytest.param(
            uds.Random(count=2), {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}, marks=pytest.mark.slow
        ),
    ],
    ids=["uds", "maxloss", "longest", "random"],
)
def test_dpo_trains_the_chosen_pairs_as_the_stock_trainer_does(tmp_path, policy, settings):
    rows, models = pairs(), {"given": {"ref_model": tiny.llama(seed=1)}}
    ours = train("DPO", tmp_path, rows, model=tiny.llama(), policy=policy, **models, **settings)
    chosen = ours[0].selector.last_indices
    assert len(chosen) == policy.count
    fed = [rows[i] for i in chosen]
    stock = train("DPO", tmp_path, fed, model=tiny.llama(), batch=len(fed), **models, **settings)
    check_same(ours, stock)


def test_dpo_of_one_pool_over_micro_batches(tmp_path):
    rows, models = pairs(), {"given": {"ref_model": tiny.llama(seed=1)}, "gradient_accumulation_steps": 2}
    policy = uds.UDS(count=4, dim=16)
    ours = train("DPO", tmp_path, rows, model=tiny.llama(), policy=policy, batch=4, scope="step", **models)
    chosen = ours[0].selector.last_indices
    stock = train("DPO", tmp_path, [rows[i] for i in chosen], model=tiny.llama(), batch=2, **models)
    check_same(ours, stock)


@pytest.mark.slow
def test_dpo_with_lora(tmp_path):
    peft = pytest.importorskip("peft")
    given = {"peft_config": peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)}
    rows = pairs()
    torch.manual_seed(0)
    ours = train("DPO", tmp_path, rows, model=tiny.llama(), policy=uds.UDS(count=3, dim=16), given=given)
    chosen = ours[0].selector.last_indices
    torch.manual_seed(0)
    stock = train("DPO", tmp_path, [rows[i] for i in chosen], model=tiny.llama(), batch=3, given=given)
    check_same(ours, stock)


def test_a_reward_model_trains_the_chosen_pairs_as_the_stock_trainer_does(tmp_path):
    rows = pairs(margin=[0.1 * i for i in range(8)])
    settings: Any = {"center_rewards_coefficient": 0.1}
    ours = train("Reward", tmp_path, rows, model=reward_model(), policy=uds.Longest(count=3), **settings)
    chosen = ours[0].selector.last_indices
    totals = [sum(size) for size in SIZES]
    assert sorted(totals[i] for i in chosen) == sorted(totals)[-3:]
    stock = train("Reward", tmp_path, [rows[i] for i in chosen], model=reward_model(), batch=3, **settings)
    check_same(ours, stock)


def test_a_reward_model_has_no_logits_to_score(tmp_path):
    with pytest.raises(TypeError, match=r"no output embeddings.*uds.Random needs none"):
        train("Reward", tmp_path, pairs(), model=reward_model(), policy=uds.UDS(keep=0.5))


def test_kto_trains_the_chosen_examples_as_the_stock_trainer_does(tmp_path):
    rows = [
        {"prompt": row["prompt"], "completion": row["chosen"], "label": bool(i % 2)} for i, row in enumerate(pairs())
    ]
    # without the estimate of the divergence, for which TRL mixes the answers of a batch before it reaches a trainer
    settings: Any = {"loss_type": "apo_zero_unpaired", "given": {"ref_model": tiny.llama(seed=1)}}
    ours = train("KTO", tmp_path, rows, model=tiny.llama(), policy=uds.UDS(count=3, dim=16), **settings)
    chosen = ours[0].selector.last_indices
    stock = train("KTO", tmp_path, [rows[i] for i in chosen], model=tiny.llama(), batch=3, **settings)
    check_same(ours, stock)


class Splitting:
    """A collator of a user's own: two sequences of each example."""

    def __call__(self, examples: Any) -> Any:
        return tiny.collate([part for example in examples for part in (example, example)])


def own_trainer(folder, collate, **selection: Any) -> Any:
    class Mine(UDSTrainerMixin, transformers.Trainer): ...

    arguments = transformers.TrainingArguments(
        str(folder), per_device_train_batch_size=4, remove_unused_columns=False, **ARGUMENTS
    )
    data: Any = tiny.examples(8)
    options: Any = {"selection": selection} if selection else {}
    return Mine(tiny.llama(), arguments, collate, data, policy=uds.MaxLoss(keep=0.5), **options)


def test_more_sequences_than_examples_are_refused_until_it_is_said_what_they_are(tmp_path):
    with pytest.raises(ValueError, match="8 sequences for 4 examples, and it is not known which"):
        own_trainer(tmp_path, Splitting()).train()
    trainer = own_trainer(tmp_path, Splitting(), sequences=1)
    trainer.train()
    assert len(trainer.selector.last_indices) == 4  # of 8, each by itself
    trainer = own_trainer(tmp_path, Splitting(), sequences=2)
    trainer.train()
    assert len(trainer.selector.last_indices) == 2
    assert isinstance(trainer.data_collator, Splitting)
    assert isinstance(trainer.get_eval_dataloader(tiny.examples(4)).collate_fn, Splitting)


def test_a_trainer_that_makes_its_batches_later_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"the loader of Mine returns a list and no mapping.*\(GRPO, RLOO\)"):
        own_trainer(tmp_path, list).train()
