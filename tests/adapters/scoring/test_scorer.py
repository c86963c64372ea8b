"""The scoring forward: features are those of the model's own logits, whatever the model, and however it is wrapped."""

import weakref

import architectures
import pytest
import tiny
from scoring import POLICY, Around, Recorded, check, examine, step, truth

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.scoring.scorer import Scorer  # noqa: E402

WORDS = {"cap": "soft-caps its logits", "all": "scores come from the full logits"}


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


def test_the_table_is_long_and_nearly_all_of_it_known():
    known = [architecture.known for architecture in architectures.TABLE.values()]
    assert sum(known) >= 40
    assert known.count(False) <= 3  # that the oldest transformers lacks; of more, names are misspelt


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


def test_a_head_that_trains_is_prepared_once_in_each_call_without_a_tolerance():
    model, batch = tiny.llama(tied=True), tiny.batch(4)
    scorer, seen = Scorer(model, score_batch_size=2, head_tolerance=0.0), Recorded()
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
    monkeypatch.setattr("uds_adapters.scoring.heads._IDENTITY_BYTES", 4 * 4 * tiny.VOCAB)
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
    monkeypatch.setattr("uds_adapters.scoring.scorer._DENSE_BYTES", 2 * 4 * tiny.VOCAB * batch["input_ids"].shape[1])
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
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(stories)
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
