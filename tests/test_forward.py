"""The scoring forward: features are those of the model's own logits, whatever the model, and however it is wrapped."""

import weakref
from typing import Any

import architectures
import numpy as np
import pytest
import reference
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters import batches  # noqa: E402
from uds_adapters.forward import Scorer, evaluating  # noqa: E402

POLICY = uds.UDS(dim=32, memory=8)
WORDS = {"cap": "soft-caps its logits", "all": "scores come from the full logits"}


def truth(model, batch) -> Any:
    """Candidates of the model's real logits."""
    shift = not model.config.is_encoder_decoder
    samples = batches.view(batch, shift=shift)
    with torch.no_grad(), evaluating(model):
        logits = model(**batch).logits
    return uds.Candidates(samples.arrange(logits), mask=samples.mask, labels=samples.labels)


def examine(scorer, batch, policy: Any = POLICY):
    return scorer.examine(batches.view(batch, shift=scorer.shift), policy)


def check(features, model, batch, *, rtol=1e-5, policy=POLICY):
    """The features are those of the real logits; the utility also by the slow oracle."""
    candidates = truth(model, batch)
    expected = policy.examine(candidates)
    assert features.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(features[name], values, atol=rtol * float(values.abs().max()), err_msg=name)
    mask = candidates.scored().numpy()
    logits = reference.row_centred(candidates.logits.compact().double().numpy())
    utility = reference.nuclear_norm(logits, mask) / np.sqrt(np.maximum(mask.sum(1), 1))
    np.testing.assert_allclose(features["utility"], utility, rtol=max(rtol, 1e-4))


class Recorded:
    """A policy that remembers which kind of logits it was shown, and of how many samples at a time."""

    needs_logits = True

    def __init__(self):
        self.kinds, self.sizes, self.heads = [], [], []

    def examine(self, candidates):
        self.kinds.append(type(candidates.logits).__name__)
        self.sizes.append(candidates.shape[0])
        self.heads.append(getattr(candidates.logits, "head", None))
        return POLICY.examine(candidates)

    def init(self, features): ...

    def choose(self, state, features, *, groups=None) -> Any: ...


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("name", architectures.TABLE)
def test_features_are_those_of_the_models_own_logits(name, left, recwarn):
    architecture = architectures.TABLE[name]
    model, batch = architecture.build(), tiny.batch(4, left=left)
    seen = Recorded()
    scorer = Scorer(model)
    features = examine(scorer, batch, seen)
    messages = [str(w.message) for w in recwarn if w.category is UserWarning]
    if architecture.route == "head":
        assert not messages
        assert seen.kinds == ["HeadLogits"]
    else:
        assert WORDS[architecture.route] in messages[0]
        examine(scorer, batch)
        assert len(messages) == len([w for w in recwarn if w.category is UserWarning]) == 1  # said once
    check(features, model, batch)


def test_the_table_is_long():
    assert len(architectures.TABLE) >= 40


# wrappers


def peft_model(config, model=None):
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    model = peft.get_peft_model(tiny.llama() if model is None else model, config(peft))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def lora(*targets, **options):
    return lambda peft: peft.LoraConfig(target_modules=list(targets), task_type="CAUSAL_LM", **options)


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
    scorer = Scorer(model, score_batch_size=2)
    for _ in range(3):
        check(examine(scorer, batch, seen), model, batch)
        step(model, batch)
    assert not any(head.frozen for head in seen.heads)
    assert seen.heads[0] is seen.heads[1]  # of one call
    assert len({id(head) for head in seen.heads}) == 3


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("tie", [False, True], ids=["untied by training", "tied"])
def test_peft_on_tied_embeddings(tie):
    peft = pytest.importorskip("peft")
    config = lora("q_proj", modules_to_save=["embed_tokens"], ensure_weight_tying=tie)
    model, batch = peft_model(config, tiny.llama(tied=True)), tiny.batch(4)
    scorer = Scorer(model)
    for _ in range(3):
        check(examine(scorer, batch), model, batch)
        step(model, batch)
    assert peft


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


def step(model, batch, rate=0.5):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


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


class Around(torch.nn.Module):
    """A module of a user's own around a model."""

    def __init__(self, model, inner=None, after=None):
        super().__init__()
        self.model, self.inner, self.after = model, model if inner is None else inner, after
        self.config, self.get_output_embeddings = model.config, model.get_output_embeddings

    def forward(self, **inputs):
        output = self.inner(**inputs)
        return output if self.after is None else self.after(output)


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


# what models return


@pytest.mark.parametrize("name", ["Llama", "Mixtral", "Qwen2Moe", "GptOss", "BART", "Switch"])
@pytest.mark.parametrize("tuples", [False, True], ids=["mappings", "tuples"])
def test_mixtures_of_experts_with_their_routers_output_and_tuples(name, tuples):
    model, batch = architectures.TABLE[name].build(), tiny.batch(4)
    model.config.output_router_logits = True
    outer = Around(model, after=(lambda output: output.to_tuple()) if tuples else None)
    check(examine(Scorer(outer), batch), model, batch)


def test_outputs_without_logits_are_an_error():
    outer = Around(tiny.llama(), after=lambda output: {"scores": output.logits.sum()})
    with pytest.raises(TypeError, match=r"returned dict with \['scores'\], without `logits`.*output.logits"):
        examine(Scorer(outer), tiny.batch(2))


def unexplained(output):
    output.logits = output.logits + output.logits.sin()
    return output


def test_logits_that_nothing_explains_are_made_in_full():
    model, batch = tiny.llama(), tiny.batch(4)
    outer = Around(model, after=unexplained)
    scorer, seen = Scorer(outer, score_batch_size=3), Recorded()
    with pytest.warns(UserWarning, match="nothing known explains.*full logits") as said:
        features = examine(scorer, batch, seen)
    assert len(said) == 1
    assert seen.kinds == ["DenseLogits"] * 2
    check(features, outer, batch)


def test_a_head_that_is_not_linear_falls_back():
    class Rounded(torch.nn.Linear):
        def forward(self, x):
            return super().forward((x * 4).round() / 4)

    model, batch = tiny.llama(), tiny.batch(4)
    model.lm_head = Rounded(32, tiny.VOCAB, bias=False)
    with pytest.warns(UserWarning, match="head is not linear.*full logits"):
        features = examine(Scorer(model), batch)
    check(features, model, batch)


# heads that train, and heads that do not


def test_a_head_that_trains_is_prepared_once_in_each_call():
    model, batch = tiny.llama(tied=True), tiny.batch(4)
    scorer, seen = Scorer(model, score_batch_size=2), Recorded()
    for _ in range(3):
        features = examine(scorer, batch, seen)
        check(features, model, batch)
        step(model, batch)
    assert not any(head.frozen for head in seen.heads)
    assert len({id(head) for head in seen.heads}) == 3


def test_a_frozen_head_is_prepared_once():
    model, batch = tiny.llama(frozen_head=True), tiny.batch(4)
    scorer, seen = Scorer(model), Recorded()
    for _ in range(3):
        check(examine(scorer, batch, seen), model, batch)
        step(model, batch)
    (head,) = set(seen.heads)
    factor = head.factor
    assert head.frozen
    assert factor is head.factor
    with torch.no_grad():
        model.lm_head.weight.mul_(2)  # as loading other weights would
    check(examine(scorer, batch, seen), model, batch)
    model.lm_head.weight.data.mul_(2)  # as merging adapters may
    check(examine(scorer, batch, seen), model, batch)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() / 3, requires_grad=False)
    check(examine(scorer, batch, seen), model, batch)
    assert len(set(seen.heads)) == 4


class Int8(torch.nn.Module):
    """A quantised layer: whole numbers and a factor for each row."""

    def __init__(self, linear):
        super().__init__()
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype))


def test_quantised_heads_are_read_once_in_blocks(monkeypatch):
    monkeypatch.setattr("uds_adapters.heads._IDENTITY_BYTES", 4 * 4 * tiny.VOCAB)
    model, batch = tiny.llama(), tiny.batch(4)
    model.lm_head = Int8(model.lm_head)
    calls = []
    model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    scorer, seen = Scorer(model), Recorded()
    for _ in range(3):
        check(examine(scorer, batch, seen), model, batch)
        step(model, batch)
    (head,) = set(seen.heads)
    assert head.frozen
    model.lm_head.weight.data.neg_()
    check(examine(scorer, batch, seen), model, batch)


# caps


def test_a_cap_may_be_ignored():
    model, batch = architectures.TABLE["Gemma2 hard cap"].build(), tiny.batch(4)
    seen = Recorded()
    features = examine(Scorer(model, softcap="ignore"), batch, seen)
    assert seen.kinds == ["HeadLogits"]
    model.config.final_logit_softcapping = None
    check(features, model, batch)


def test_a_cap_that_is_not_the_models_own_is_not_ignored_either():
    model, batch = architectures.TABLE["Gemma2"].build(), tiny.batch(4)
    outer = Around(model, after=unexplained)
    with pytest.warns(UserWarning, match="nothing known explains"):
        features = examine(Scorer(outer, softcap="ignore"), batch)
    check(features, outer, batch)


def test_capped_logits_are_made_for_some_samples_at_a_time(monkeypatch):
    model, batch = architectures.TABLE["Gemma2"].build(), tiny.batch(5)
    monkeypatch.setattr("uds_adapters.forward._DENSE_BYTES", 2 * 4 * tiny.VOCAB * batch["input_ids"].shape[1])
    seen = Recorded()
    with pytest.warns(UserWarning, match="soft-caps"):
        features = examine(Scorer(model), batch, seen)
    assert seen.sizes == [2, 2, 1]
    check(features, model, batch)


@pytest.mark.parametrize("size", [0.01, 1.0], ids=["small logits", "logits"])
def test_a_cap_in_half_precision_is_applied(size):
    model, batch = architectures.TABLE["Gemma2 hard cap"].build(), tiny.batch(4)
    with torch.no_grad():
        model.model.norm.weight.add_(1).mul_(size).sub_(1)
    seen = Recorded()
    with pytest.warns(UserWarning, match="soft-caps"):
        features = examine(Scorer(model.bfloat16()), batch, seen)
    check(features, model, batch, rtol=0.03)


# precision


def test_score_arithmetic_is_outside_autocast():
    model, batch = tiny.llama(), tiny.batch(4)
    seen = Recorded()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = examine(Scorer(model), batch, seen)
    assert seen.kinds == ["HeadLogits"]
    assert features["utility"].dtype == torch.float32
    check(features, model, batch, rtol=0.03)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["Llama", "GPTJ", "Cohere", "BART"])
def test_other_precisions(name, dtype):
    model, batch = architectures.TABLE[name].build().to(dtype), tiny.batch(4)
    seen = Recorded()
    features = examine(Scorer(model), batch, seen)
    assert seen.kinds == ["HeadLogits"]
    check(features, model, batch, rtol=1e-5 if dtype == torch.float64 else 0.03)


@pytest.mark.parametrize("name", HEAD_TRAINS)
def test_peft_on_the_head_in_half_precision(name):
    model, batch = peft_model(HEAD_TRAINS[name], tiny.llama().bfloat16()).bfloat16(), tiny.batch(4)
    seen = Recorded()
    features = examine(Scorer(model), batch, seen)
    assert seen.kinds == ["HeadLogits"]
    check(features, model, batch, rtol=0.03)


# micro-batches


@pytest.mark.parametrize("name", ["Llama", "BART", "Gemma2"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.filterwarnings("ignore:the model soft-caps")
def test_micro_batches_change_nothing(name, size):
    model, batch = architectures.TABLE[name].build(), tiny.batch(7)
    seen = Recorded()
    features = examine(Scorer(model, score_batch_size=size), batch, seen)
    assert sum(seen.sizes) == 7
    assert max(seen.sizes) == size
    check(features, model, batch)


@pytest.mark.parametrize("size", [None, 2])
def test_documents_in_one_row(size):
    model, batch = tiny.llama(), tiny.batch(5)
    rows = [batch["attention_mask"][i].bool() for i in range(5)]
    line = {
        name: torch.cat([batch[name][i][row] for i, row in enumerate(rows)])[None] for name in ("input_ids", "labels")
    }
    line["position_ids"] = torch.cat([torch.arange(int(row.sum())) for row in rows])[None]
    features = examine(Scorer(model, score_batch_size=size), line)
    check(features, model, batch)


def failing(model, most, error, monkeypatch):
    """Let the model's forward raise for more than `most` samples; gives the sizes that it was asked for."""
    forward, asked = model.forward, []

    def limited(input_ids, **inputs):
        asked.append(len(input_ids))
        if len(input_ids) > most:
            raise error
        return forward(input_ids=input_ids, **inputs)

    monkeypatch.setattr(model, "forward", limited)
    return asked


OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_where_memory_runs_out_micro_batches_are_halved(error, monkeypatch):
    model, batch = tiny.llama(), tiny.batch(11)
    plain = tiny.llama()
    asked = failing(model, 3, error, monkeypatch)
    scorer = Scorer(model)
    with pytest.warns(UserWarning, match="too little memory.*score_batch_size") as said:
        features = examine(scorer, batch)
    assert asked == [11, 5, 2, 2, 1, 2, 2, 1, 1]
    check(features, plain, batch)
    examine(scorer, batch)
    assert len(said) == 1
    assert asked[9:] == [2, 2, 2, 2, 2, 1]  # remembered
    assert scorer.score_batch_size == 2


def test_where_one_sample_is_too_much_the_error_is_raised(monkeypatch):
    model = tiny.llama()
    asked = failing(model, 0, OUT_OF_MEMORY[0], monkeypatch)
    with (
        pytest.raises(torch.cuda.OutOfMemoryError),
        pytest.warns(UserWarning, match="too little memory"),
    ):
        examine(Scorer(model), tiny.batch(4))
    assert asked == [4, 2, 1]


def test_other_errors_are_raised_at_once(monkeypatch):
    model = tiny.llama()
    asked = failing(model, 0, RuntimeError("shapes do not match"), monkeypatch)
    with pytest.raises(RuntimeError, match="shapes"):
        examine(Scorer(model), tiny.batch(4))
    assert asked == [4]


class Peak(TorchDispatchMode):
    """Bytes of the tensors that are made while it is entered, at the most at any time; the model's own not counted."""

    def __init__(self, model):
        super().__init__()
        self.now, self.most = 0, 0
        self._known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage):
        if storage.data_ptr() in self._known or not storage.nbytes():
            return
        self._known.add(storage.data_ptr())
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, storage.data_ptr(), storage.nbytes())

    def _forget(self, pointer, size):
        self._known.discard(pointer)
        self.now -= size


def peak(vocab, samples, time=32):
    torch.manual_seed(0)
    model = architectures.TABLE["Llama"].build(vocab_size=vocab).requires_grad_(False)
    ids = torch.randint(0, vocab, (samples, time))
    scorer = Scorer(model)
    with Peak(model) as memory:
        # a policy that looks at no logits: what others make of them has tests of its own
        examine(scorer, {"input_ids": ids, "labels": ids}, uds.Longest())
    return memory.most


@pytest.mark.parametrize(("samples", "most"), [(4, 4.0), (32, 2.0)])
def test_memory_grows_with_the_vocabulary_by_some_logits_of_one_position_only(samples, most):
    small, large = 20_000, 40_000
    grown = peak(large, samples) - peak(small, samples)
    assert grown <= most * 4 * samples * (large - small)  # all logits would be 32


# one piece, for measurements


@pytest.mark.filterwarnings("ignore:the model soft-caps")
@pytest.mark.parametrize("name", ["Llama", "Gemma2", "BART"])
def test_candidates_in_one_piece(name):
    model, batch = architectures.TABLE[name].build(), tiny.batch(5)
    candidates = Scorer(model)(batch)
    check(POLICY.examine(candidates), model, batch)
    assert torch.equal(candidates.scored(), truth(model, batch).scored())


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
    scorer = Scorer(model)
    check(examine(scorer, batch), model, batch)
    candidates = scorer(batch)
    assert uds.cross_entropy(candidates.logits, candidates.labels).mean() < 2.5  # it knows such stories
