"""Outputs of decoder layers: the model's own hidden states, whatever the form of the batch and however it is scored."""

from typing import Any

import architectures
import pytest
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import uds_core as uds  # noqa: E402
from uds_adapters import batches  # noqa: E402
from uds_adapters.scoring.layer_probe import LayerProbe  # noqa: E402
from uds_adapters.scoring.scorer import Scorer  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402

MODELS = ["llama", "gpt2", "gemma2", "t5", "bart", "gpt_neox"]


class FirstLayer:
    """Keep the samples whose states in some layers are the longest on average."""

    def __init__(self, *layers, logits=True, keep=0.5):
        self.needs = uds.Needs(layers=layers, logits=logits)
        self.budget, self.keep = uds.Budget(keep=keep), keep

    def examine(self, candidates, /) -> Any:
        mask = candidates.scored()[..., None]
        states = {f"layer {n}": (candidates.layer(n) * mask).sum(1) / mask.sum(1) for n in self.needs.layers}
        return {**states, "length": candidates.lengths()}

    def init(self, features, /):
        return uds.Longest().init(features)

    def choose(self, state, features, /, *, groups=None) -> Any:
        scores = features[f"layer {self.needs.layers[0]}"].norm(dim=1)
        indices = uds.top_k(scores, features["length"], budget=self.budget, groups=groups)
        return uds.Selection(indices=indices, scores=scores), self.init(features)


def build(name) -> Any:
    torch.manual_seed(0)
    if name == "llama":
        return tiny.llama()
    small = {"vocab_size": tiny.VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
    options = {
        "gpt2": ("GPT2", {"vocab_size": tiny.VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 2}),
        "gemma2": ("Gemma2", {**small, **more}),
        "gpt_neox": ("GPTNeoX", {**small, "intermediate_size": 24}),
        "t5": ("T5", {**architectures.T5, "num_decoder_layers": 3}),
        "bart": ("Bart", {**architectures.SEQ2SEQ, "decoder_layers": 2}),
    }
    kind, config = options[name]
    head = {"gpt2": "LMHeadModel", "t5": "ForConditionalGeneration", "bart": "ForConditionalGeneration"}
    config = getattr(transformers, f"{kind}Config")(**config)
    return getattr(transformers, f"{kind}{head.get(name, 'ForCausalLM')}")(config)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:the model soft-caps its logits")
def test_layers_are_the_models_own_hidden_states(name):
    model, batch, policy = build(name), tiny.batch(5), FirstLayer(0, -2)
    scorer = Scorer(model)
    features = scorer.examine(scorer.view(batch), policy)
    with torch.no_grad():
        output = model.eval()(**batch, output_hidden_states=True)
    states = output.get("decoder_hidden_states") or output.hidden_states
    number, own = len(states) - 1, batch["labels"] != -100
    mask = own if name in ("t5", "bart") else torch.nn.functional.pad(own[:, 1:], (0, 1))
    for layer in (0, -2):
        expected = (states[(layer % number) + 1] * mask[..., None]).sum(1) / mask.sum(1)[:, None]
        torch.testing.assert_close(features[f"layer {layer}"], expected, rtol=1e-4, atol=1e-5)


def test_the_form_of_the_batch_and_the_size_of_parts_change_nothing():
    model, examples, policy = tiny.llama(), tiny.examples(6), FirstLayer(0, 1)
    expected = Scorer(model).examine(batches.view(tiny.collate(examples)), policy)
    packed = transformers.DataCollatorWithFlattening(return_tensors="pt")(examples)
    for batch, size in ((tiny.collate(examples, left=True), None), (packed, None), (tiny.collate(examples), 1)):
        got = Scorer(model, score_batch_size=size).examine(batches.view(batch), policy)
        for name, values in expected.items():
            torch.testing.assert_close(got[name], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("logits", [True, False])
def test_a_selector_chooses_by_a_layer_and_leaves_no_hook(logits):
    model, batch = tiny.llama(), tiny.batch(6)
    select = BatchSelector(model, FirstLayer(0, logits=logits))
    kept = select(batch)
    scores = Scorer(model).examine(batches.view(batch), FirstLayer(0))["layer 0"].norm(dim=1)
    assert select.last_indices == sorted(scores.argsort(descending=True)[:3].tolist())
    assert len(kept["input_ids"]) == 3
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("number", [2, -3])
def test_a_layer_that_is_not_there_is_named(number):
    words = rf"the policy reads layer {number}, but LlamaForCausalLM has 2 decoder layers, 0 to 1"
    with pytest.raises(ValueError, match=words):
        BatchSelector(tiny.llama(), FirstLayer(number))(tiny.batch(6))


def test_a_model_whose_layers_cannot_be_found_is_refused():
    with pytest.raises(ValueError, match="the decoder layers of Linear cannot be found"):
        LayerProbe(torch.nn.Linear(2, 2), (0,))
    assert LayerProbe(torch.nn.Linear(2, 2)).states == {}
