"""Scores at a layer: only the first layers run, and what follows them is the model's own norm and head."""

from functools import partial
from typing import Any

import architectures
import pytest
import tiny

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import uds_core as uds  # noqa: E402
from uds_adapters.scoring.layer_gradients import LayerGradientScorer  # noqa: E402
from uds_adapters.scoring.layer_probe import decoder_layers  # noqa: E402
from uds_adapters.scoring.scorer import Scorer  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402

LAYERS = 3
DEEPER = {"num_hidden_layers": LAYERS}
DECODERS = [
    "Llama tied",
    "Mistral",
    "GPT2",
    "GPTNeoX",
    "Gemma2 no cap",
    "Cohere2",
    "Phi3",
    "OPT",
    "Bloom",
    "Mamba",
    "Jamba",
]
SEQ2SEQ = {name: {"decoder_layers": LAYERS} for name in ("BART", "mBART")}
SEQ2SEQ |= {name: {"num_decoder_layers": LAYERS} for name in ("T5", "UMT5", "Switch")}


def build(name, **options):
    return architectures.TABLE[name].build(**options)


def counted(model):
    """Numbers of the layers that run, in order."""
    calls = []
    for number, layer in enumerate(decoder_layers(model)):
        layer.register_forward_hook(lambda *_, number=number: calls.append(number))
    return calls


@pytest.mark.parametrize("name", [*DECODERS, *SEQ2SEQ])
def test_only_the_first_layers_run(name):
    model = build(name, **SEQ2SEQ.get(name, DEEPER))
    before = decoder_layers(model)
    scorer, batch = Scorer(model, depth=2), tiny.batch(3)
    scorer(batch)  # verified with a whole pass first
    calls = counted(model)
    scorer(batch)
    assert calls == [0, 1]
    assert decoder_layers(model) is before
    assert model.training


def test_logits_are_those_of_the_last_norm_and_the_head_at_that_layer():
    model, batch = build("Llama", **DEEPER), tiny.batch(4)
    got = Scorer(model, depth=2)(batch).logits
    with torch.no_grad():
        states = model.eval()(
            **{k: v for k, v in batch.items() if k != "labels"}, output_hidden_states=True
        ).hidden_states
        expected = model.lm_head(model.model.norm(states[2]))
    dense = torch.cat([block for _, block in got.blocks()], 2)
    torch.testing.assert_close(dense, expected, rtol=1e-4, atol=1e-5)


def test_full_depth_is_the_usual_pass():
    model, batch = build("Llama", **DEEPER), tiny.batch(4)
    policy = uds.UDS(keep=0.5)
    whole, deep = Scorer(model), Scorer(model, depth=LAYERS)
    expected = whole.examine(whole.view(batch), policy)
    got = deep.examine(deep.view(batch), policy)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_a_decoder_that_needs_its_other_layers_is_refused_with_the_cause():
    model = build("Llama", **DEEPER)
    before, layers = decoder_layers(model), model.model
    layers.layers[0].register_forward_pre_hook(lambda *_: layers.layers[2] and None)
    with pytest.raises(
        ValueError, match=r"cannot end after 1 of its 3 layers: it does not run: .*Score at its full depth"
    ):
        Scorer(model, depth=1)(tiny.batch(2))
    assert decoder_layers(model) is before


def test_a_decoder_whose_layers_are_not_those_that_run_is_refused():
    model = build("Llama", **DEEPER)
    every = list(model.model.layers)
    forward = model.model.layers[0].forward
    model.model.layers[0].forward = lambda *args, **kwargs: every[2](forward(*args, **kwargs), **kwargs)
    with pytest.raises(ValueError, match=r"of its layers \[0, 2\] ran"):
        Scorer(model, depth=1)(tiny.batch(2))


def test_a_decoder_whose_first_layers_depend_on_the_number_of_layers_is_refused():
    model = build("Llama", **DEEPER)
    first, layers = model.model.layers[0], model.model
    forward = first.forward
    first.forward = lambda *args, **kwargs: forward(*args, **kwargs) * len(layers.layers)
    with pytest.raises(ValueError, match="layer 0 then computes something else"):
        Scorer(model, depth=1)(tiny.batch(2))


@pytest.mark.parametrize(("depth", "error"), [(0, ValueError), (4, ValueError), (1.5, TypeError), (True, TypeError)])
def test_what_is_no_number_of_layers_is_refused(depth, error):
    with pytest.raises(error, match="`depth` must be a number of"):
        Scorer(build("Llama", **DEEPER), depth=depth)


def test_near_duplicates_are_found_at_a_layer():
    model = build("Llama", **DEEPER)
    batch = tiny.batch(6)
    twice = {name: torch.cat([value, value[:1]]) for name, value in batch.items()}
    select = BatchSelector(model, uds.Fresh(keep=0.5, by="logits"), scorer=partial(Scorer, depth=1))
    calls = counted(model)
    select(twice)
    assert set(calls[-2:]) == {0}
    assert select.last is not None
    assert select.last.parts["near_duplicate"].tolist()[-1] == 1.0


def test_what_needs_later_layers_is_refused():
    model, batch = build("Llama", **DEEPER), tiny.batch(4)
    select = BatchSelector(model, "predicted:policy=maxloss,keep=0.5", scorer=partial(Scorer, depth=1))
    with pytest.raises(ValueError, match="learns from scores of the training pass"):
        select(batch)
    scorer = LayerGradientScorer(model, validation=batch, depth=1)
    with pytest.raises(ValueError, match="goes back through all layers"):
        scorer.examine(scorer.view(batch), uds.GREATS(keep=0.5))

    class Deep(uds.MaxLoss):
        needs: Any = uds.Needs(layers=(-1,))

    scorer = Scorer(model, depth=2)
    with pytest.raises(ValueError, match="Deep reads layer -1"):
        scorer.examine(scorer.view(batch), Deep(keep=0.5))
