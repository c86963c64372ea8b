"""Scoring of models in wrappers: PEFT in every form, compiled, on several devices, offloaded."""

import architectures
import pytest
import tiny
from scoring import Around, Recorded, check, examine, step

torch = pytest.importorskip("torch")

import uds_core as uds  # noqa: E402
from uds_adapters.scoring.scorer import Scorer, evaluating  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402


def peft_model(config, model=None):
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    try:
        model = peft.get_peft_model(tiny.llama() if model is None else model, config(peft))
    except AttributeError as error:
        if "'embedding_dim'" not in str(error):
            raise
        pytest.skip("this PEFT trains tokens of embeddings, and none of a head")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def lora(*targets, **options):
    def config(peft):
        missing = sorted(options.keys() - peft.LoraConfig.__dataclass_fields__.keys())
        if missing:
            pytest.skip(f"this PEFT's LoRA knows no {', '.join(missing)}")
        return peft.LoraConfig(target_modules=list(targets), task_type="CAUSAL_LM", **options)

    return config


HEAD_FROZEN = {
    "LoRA on other layers": lora("q_proj"),
    "LoRA on all linear layers": lambda peft: peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"),
    "prompt tuning": lambda peft: peft.PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
    "prefix tuning": lambda peft: peft.PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
}
HEAD_TRAINS = {
    "LoRA": lora("lm_head"),
    "rsLoRA": lora("lm_head", use_rslora=True),
    "DoRA": lora("lm_head", use_dora=True),
    "modules_to_save": lora("q_proj", modules_to_save=["lm_head"]),
    "trainable tokens": lora("q_proj", trainable_token_indices={"lm_head": [3, 4, 50]}),
}


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning")  # by prefix tuning of peft 0.21
@pytest.mark.parametrize("name", HEAD_FROZEN)
def test_peft_beside_the_head(name):
    model, batch = peft_model(HEAD_FROZEN[name]), tiny.batch(4)
    seen = Recorded()
    scorer = Scorer(model)
    for _ in range(2):
        features = examine(scorer, batch, seen)
        check(features, model, batch)
    assert seen.heads[0] is seen.heads[1]
    assert seen.heads[0].frozen


@pytest.mark.parametrize("name", HEAD_TRAINS)
def test_peft_on_the_head(name):
    model, batch = peft_model(HEAD_TRAINS[name]), tiny.batch(4)
    seen = Recorded()
    scorer = Scorer(model, score_batch_size=2, head_tolerance=0.0)
    for _ in range(3):
        check(examine(scorer, batch, seen), model, batch)
        step(model, batch)
    assert not any(head.frozen for head in seen.heads)
    assert seen.heads[0] is seen.heads[1]  # of one call
    assert len({id(head) for head in seen.heads}) == 3


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("tie", [False, True], ids=["untied by training", "tied"])
def test_peft_on_tied_embeddings(tie):
    config = lora("q_proj", modules_to_save=["embed_tokens"], **({"ensure_weight_tying": True} if tie else {}))
    model, batch = peft_model(config, tiny.llama(tied=True)), tiny.batch(4)
    scorer = Scorer(model)
    for _ in range(3):
        check(examine(scorer, batch), model, batch)
        step(model, batch)


def test_trainable_tokens_of_tied_embeddings():
    config = lora("q_proj", trainable_token_indices=[3, 4, 50])
    model, batch = peft_model(config, tiny.llama(tied=True)), tiny.batch(4)
    scorer = Scorer(model)
    for _ in range(3):
        check(examine(scorer, batch), model, batch)
        step(model, batch)


def test_peft_on_an_encoder_decoder():
    model = architectures.TABLE["BART"].build()
    config = lambda peft: peft.LoraConfig(target_modules=["q_proj"], task_type="SEQ_2_SEQ_LM")  # noqa: E731
    model, batch = peft_model(config, model), tiny.batch(4)
    check(examine(Scorer(model), batch), model, batch)


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
@pytest.mark.parametrize("how", ["wrapped", "in place", "layers", "aot_eager"])
def test_compiled_models_are_scored_by_their_eager_modules(how):
    torch.compiler.reset()
    model, batch = architectures.TABLE["Llama"].build(), tiny.batch(4)
    called = model
    if how == "in place":
        model.compile(backend="eager")
    elif how == "layers":
        for layer in model.model.layers:
            layer.compile(backend="eager")
    else:
        called = torch.compile(model, backend="aot_eager" if how == "aot_eager" else "eager")
    called(**batch)
    seen = Recorded()
    features = examine(Scorer(called), batch, seen)
    assert seen.kinds == ["HeadLogits"]
    check(features, model, batch)


def test_a_head_that_is_replaced_is_scored_as_by_a_new_selector():
    model, batch = tiny.llama(), tiny.batch(6)
    select = BatchSelector(model, uds.MaxLoss(count=2))
    select(batch)
    model.resize_token_embeddings(tiny.VOCAB + 7, mean_resizing=False)
    again = BatchSelector(model, uds.MaxLoss(count=2))
    assert torch.equal(select(batch)["input_ids"], again(batch)["input_ids"])
    ours, new = select.last, again.last
    assert ours is not None
    assert new is not None
    assert torch.equal(ours.scores, new.scores)


@pytest.mark.filterwarnings("ignore:(?!the head)")  # of the compiler's own
def test_a_compiled_part_that_has_the_head_in_it_falls_back_with_a_word():
    torch.compiler.reset()
    model, batch = architectures.TABLE["Llama"].build(), tiny.batch(4)
    outer = Around(model, torch.compile(model, backend="eager"))
    with torch.no_grad(), evaluating(outer):
        outer(**{name: value for name, value in batch.items() if name != "labels"}, use_cache=False)
    scorer, seen = Scorer(outer), Recorded()
    with pytest.warns(UserWarning, match="hook did not run.*compiled.*full logits"):
        features = examine(scorer, batch, seen)
    assert seen.kinds == ["DenseLogits"]
    check(features, model, batch)


@pytest.mark.parametrize("wrap", [torch.nn.DataParallel, Around])
def test_wrapped_models(wrap):
    model, batch = tiny.llama(), tiny.batch(4)
    check(examine(Scorer(wrap(model)), batch), model, batch)


def test_data_parallel_over_devices_is_scored_on_one():
    model, batch = tiny.llama(), tiny.batch(4)
    wrapped = torch.nn.DataParallel(model)
    wrapped.forward = None  # copies to the other devices, with the hook
    check(examine(Scorer(wrapped), batch), model, batch)


@pytest.mark.parametrize("part", ["", "lm_head"])
def test_offloaded_weights(part):
    accelerate = pytest.importorskip("accelerate")
    model, batch = tiny.llama().requires_grad_(False), tiny.batch(4)
    plain = tiny.llama()
    accelerate.cpu_offload(model.get_submodule(part), execution_device="cpu")
    assert model.lm_head.weight.is_meta
    scorer, seen = Scorer(model), Recorded()
    for _ in range(2):
        check(examine(scorer, batch, seen), plain, batch)
    assert seen.kinds == ["HeadLogits"] * 2
    assert seen.heads[0] is seen.heads[1]
    assert model.lm_head.weight.is_meta


@pytest.mark.parametrize("name", HEAD_TRAINS)
def test_peft_on_the_head_in_half_precision(name):
    model, batch = peft_model(HEAD_TRAINS[name], tiny.llama().bfloat16()).bfloat16(), tiny.batch(4)
    seen = Recorded()
    features = examine(Scorer(model), batch, seen)
    assert seen.kinds == ["HeadLogits"]
    check(features, model, batch, rtol=0.03)
