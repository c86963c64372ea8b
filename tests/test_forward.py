"""The scoring forward: right candidates from many models, and no trace left behind."""

import warnings
from typing import Any

import numpy as np
import pytest
import reference
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import uds_core as uds  # noqa: E402
from uds_adapters.forward import HeadProbe, Scorer, evaluating  # noqa: E402

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
FAMILIES = {
    "Llama": {"intermediate_size": 48},
    "Qwen2": {"intermediate_size": 48, "num_key_value_heads": 1},
    "GPT2": {},
    "GPTNeoX": {"intermediate_size": 48},
    "GPTJ": {"rotary_dim": 8, "n_head": 2},  # bias on its head
    "Phi": {"intermediate_size": 48},  # bias on its head
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 16},
    "Cohere": {"intermediate_size": 48, "logit_scale": 0.0625},
    "Granite": {"intermediate_size": 48, "logits_scaling": 8.0},
    "Gemma2": {"intermediate_size": 48, "head_dim": 16, "num_key_value_heads": 1, "final_logit_softcapping": 0.5},
}
DENSE = ("Gemma2",)


def build(family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SMALL, **FAMILIES[family]})
    name = {"GPT2": "GPT2LMHeadModel"}.get(family, f"{family}ForCausalLM")
    model = getattr(transformers, name)(config)
    for parameter in model.parameters():  # biases and norms off their symmetric start
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.train()


def true_logits(model, batch):
    with torch.no_grad(), evaluating(model):
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.double().numpy()


def check(candidates, model, batch):
    mask = candidates.scored().numpy()
    expected = reference.nuclear_norm(true_logits(model, batch), mask)
    got = uds.nuclear_norm(candidates.logits, mask=candidates.scored()).numpy()
    np.testing.assert_allclose(got, expected, rtol=2e-4)
    labels = batch["labels"].numpy()
    target = np.concatenate([labels[:, 1:], np.full((len(labels), 1), -100)], axis=1)
    np.testing.assert_array_equal(mask, (target != -100) & (batch["attention_mask"].numpy() == 1))
    loss = uds.cross_entropy(candidates.logits, candidates.labels).numpy()
    np.testing.assert_allclose(loss, reference.cross_entropy(true_logits(model, batch), target), rtol=1e-4)


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_candidates_have_the_models_own_logits(family, left):
    model, batch = build(family), tiny.batch(4, left=left)
    scorer = Scorer(model)
    if family in DENSE:
        with pytest.warns(UserWarning, match="soft-capping.* scores come from the full logits"):
            candidates = scorer(batch)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scorer(batch)  # said once
    else:
        candidates = scorer(batch)
    through_the_head = type(candidates.logits).__name__ == "HeadLogits"
    assert through_the_head is (family not in DENSE)
    check(candidates, model, batch)


def test_leaves_no_trace():
    model = tiny.llama(dropout=0.5)
    model.model.layers[1].eval()  # a module that the user keeps in evaluation mode
    flags = [module.training for module in model.modules()]
    batch = tiny.batch()
    before = {name: tensor.clone() for name, tensor in batch.items()}
    torch.manual_seed(1)
    random = torch.get_rng_state()
    first, second = Scorer(model)(batch), Scorer(model)(batch)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(batch[name], before[name]) for name in before)
    assert not model.lm_head._forward_pre_hooks
    assert all(parameter.grad is None for parameter in model.parameters())
    a, b = uds.nuclear_norm(first.logits), uds.nuclear_norm(second.logits)
    assert torch.equal(a, b)
    assert not a.requires_grad


def test_flags_come_back_after_an_error():
    model = tiny.llama()
    with pytest.raises(IndexError):
        Scorer(model)({"input_ids": torch.full((1, 3), 1000)})
    assert not model.lm_head._forward_pre_hooks
    assert model.training


def test_the_head_is_handed_one_position():
    model, batch = tiny.llama(), tiny.batch()
    with HeadProbe(model.lm_head) as probe, torch.no_grad():
        logits = model(input_ids=batch["input_ids"]).logits
    assert logits.shape[1] == 1
    assert probe.hidden is not None
    assert probe.hidden.shape[:2] == batch["input_ids"].shape


def head_of(candidates) -> Any:
    return candidates.logits.head


def step(model, batch, rate=0.5):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    model(**batch).loss.backward()
    optimizer.step()


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_that_trains_is_taken_anew_and_scores_stay_right(tied):
    model, batch = tiny.llama(tied=tied), tiny.batch()
    scorer = Scorer(model)
    heads = {id(head_of(scorer(batch)))}
    for _ in range(5):
        step(model, batch)
        candidates = scorer(batch)
        heads.add(id(head_of(candidates)))
        assert not head_of(candidates).frozen
    check(candidates, model, batch)


def test_a_frozen_head_is_prepared_once_and_scores_stay_right():
    model, batch = tiny.llama(frozen_head=True), tiny.batch()
    scorer = Scorer(model)
    head = head_of(scorer(batch))
    factor = head.factor
    for _ in range(5):
        step(model, batch)
        candidates = scorer(batch)
        assert head_of(candidates) is head
    assert head.factor is factor
    check(candidates, model, batch)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)  # as loading other weights would
    assert head_of(scorer(batch)) is not head
    check(scorer(batch), model, batch)
    model.lm_head.weight.data.mul_(2)  # as merging adapters may
    check(scorer(batch), model, batch)


def test_lora_on_other_layers_keeps_the_head_frozen():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model, batch = peft.get_peft_model(tiny.llama(), config), tiny.batch()
    candidates = Scorer(model)(batch)
    assert head_of(candidates).frozen
    check(candidates, model, batch)


def test_lora_on_the_head_falls_back_to_real_logits():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["lm_head"], init_lora_weights=False, task_type="CAUSAL_LM")
    model, batch = peft.get_peft_model(tiny.llama(), config), tiny.batch()
    with pytest.warns(UserWarning, match="LoRA on the head"):
        candidates = Scorer(model)(batch)
    check(candidates, model, batch)


def test_score_arithmetic_is_outside_autocast():
    model, batch = tiny.llama(), tiny.batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        candidates = Scorer(model)(batch)
    assert type(candidates.logits).__name__ == "HeadLogits"
    assert candidates.logits.compact().dtype == torch.float32
    np.testing.assert_allclose(
        uds.nuclear_norm(candidates.logits).numpy(), uds.nuclear_norm(Scorer(model)(batch).logits).numpy(), rtol=0.05
    )


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_a_compiled_model_is_scored_by_its_eager_module():
    model, batch = tiny.llama(), tiny.batch()
    compiled = torch.compile(model, backend="eager")
    compiled(**batch)
    candidates = Scorer(compiled)(batch)
    assert type(candidates.logits).__name__ == "HeadLogits"
    check(candidates, model, batch)


def test_models_that_cannot_be_scored_are_refused_at_construction():
    with pytest.raises(TypeError, match="Linear has no output embeddings"):
        Scorer(torch.nn.Linear(2, 2))
    config = transformers.BartConfig(
        vocab_size=9,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
    )
    with pytest.raises(ValueError, match="encoder-decoder models are not supported"):
        Scorer(transformers.BartForConditionalGeneration(config))


def test_a_really_pretrained_model(stories):
    model = transformers.AutoModelForCausalLM.from_pretrained(stories)
    tokenizer = transformers.AutoTokenizer.from_pretrained(stories)
    texts = [
        "Once upon a time, there was a little dog.",
        "The cat sat.",
        "One day, Lily went to the park with her mom.",
    ]
    batch = dict(tokenizer(texts, return_tensors="pt", padding=True, padding_side="right"))
    batch.pop("token_type_ids", None)
    batch["labels"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
    candidates = Scorer(model)(batch)
    check(candidates, model, batch)
    assert uds.cross_entropy(candidates.logits, candidates.labels).mean() < 2.5  # it knows such stories
