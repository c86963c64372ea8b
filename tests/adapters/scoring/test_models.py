"""How a model is called: out of its wrappers, with what its forward needs."""

import architectures
import pytest
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from uds_adapters import batches  # noqa: E402
from uds_adapters.scoring import models  # noqa: E402
from uds_adapters.scoring.scorer import Scorer  # noqa: E402


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own
def test_bare_is_the_model_out_of_all_wrappers():
    peft = pytest.importorskip("peft")
    model = tiny.llama()
    assert models.bare(model) is model
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))
    assert models.bare(wrapped) is model
    wrapped = torch.nn.DataParallel(torch.compile(wrapped))
    assert models.bare(wrapped) is model


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own
def test_eager_keeps_what_changes_the_inputs():
    peft = pytest.importorskip("peft")
    model = tiny.llama()
    wrapped = peft.get_peft_model(model, peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    assert models.eager(torch.nn.DataParallel(torch.compile(wrapped))) is wrapped
    assert models.eager(model) is model


def test_models_without_a_head_are_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"Linear has no output embeddings.*get_output_embeddings\(\)` must return"):
        Scorer(torch.nn.Linear(2, 2))
    model = tiny.llama()
    model.get_output_embeddings = lambda: torch.nn.ModuleList([model.lm_head])
    with pytest.raises(TypeError, match="got ModuleList"):
        Scorer(model)


def test_options_are_checked():
    with pytest.raises(ValueError, match="`softcap` must be 'exact' or 'ignore', got 'no'"):
        Scorer(tiny.llama(), softcap="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`score_batch_size` must be a positive number"):
        Scorer(tiny.llama(), score_batch_size=0)


def test_inputs_are_without_labels_and_cache():
    model, batch = tiny.llama(), tiny.batch()
    inputs = models.inputs_for(model, {**batch, "num_items_in_batch": 3, "logits_to_keep": 1}, batch["labels"])
    assert inputs.pop("use_cache") is False
    assert inputs.keys() == {"input_ids", "attention_mask"}


def test_the_cache_may_have_another_name():
    model, batch = architectures.TABLE["XLNet"].build(), tiny.batch(2)
    inputs = models.inputs_for(model, batch, None)
    assert inputs.pop("use_mems") is False
    assert inputs.keys() == {"input_ids", "attention_mask"}


def test_only_what_a_forward_takes_is_given():
    class Mine(torch.nn.Module):
        def forward(self, input_ids, attention_mask=None): ...

    batch = tiny.batch()
    assert models.inputs_for(Mine(), batch, None).keys() == {"input_ids", "attention_mask"}


SEQ2SEQ = [name for name, architecture in architectures.TABLE.items() if architecture.config and "T5" in name]
SEQ2SEQ += ["BART", "mBART", "Marian", "Pegasus", "M2M100", "Blenderbot", "BlenderbotSmall", "PLBart", "Switch"]


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_decoder_inputs_are_those_that_the_labels_would_make(name):
    model, batch = architectures.TABLE[name].build().eval(), tiny.batch(3)
    given = []
    model.get_decoder().register_forward_pre_hook(
        lambda _module, _args, kwargs: given.append(kwargs["input_ids"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**batch)
        model(**models.inputs_for(model, batch, batch["labels"]))
    assert torch.equal(*given)
    assert bool((given[0] >= 0).all())


def test_decoder_inputs_of_the_batch_are_kept():
    model, batch = architectures.TABLE["T5"].build(), tiny.batch(3)
    own = torch.ones(3, 4, dtype=torch.int64)
    assert models.inputs_for(model, {**batch, "decoder_input_ids": own}, None)["decoder_input_ids"] is own


def test_an_encoder_decoder_without_decoder_inputs_is_an_error():
    model, batch = architectures.TABLE["BART"].build(), tiny.batch(3)
    with pytest.raises(ValueError, match=r"BartForConditionalGeneration is an encoder-decoder.*`decoder_input_ids`"):
        models.inputs_for(model, batch, None)
    assert models.is_encoder_decoder(model)
    assert Scorer(model).layouts.of({}) == batches.Layout(shift=False, decoder=True)
    assert Scorer(tiny.llama()).layouts.of({}) == batches.Layout()


def test_logits_are_found_in_what_models_return():
    logits = torch.zeros(2, 1, 5)
    output = transformers.modeling_outputs.CausalLMOutput(logits=logits)
    for returned in (logits, {"logits": logits}, output, output.to_tuple(), (torch.zeros(()), logits, logits + 1)):
        assert models.logits_of(returned) is logits


@pytest.mark.parametrize("returned", [None, {"loss": torch.zeros(())}, (torch.zeros(()),), {"logits": None}])
def test_outputs_without_logits_are_an_error(returned):
    with pytest.raises(TypeError, match="without `logits`"):
        models.logits_of(returned)


def test_a_forward_that_unsloth_replaced_is_refused():
    def forward(self, **inputs):
        raise NotImplementedError

    forward.__module__ = "unsloth.models.llama"
    model = tiny.llama()
    model.__class__ = type("Fast", (type(model),), {"forward": forward})
    with pytest.raises(ValueError, match=r"forward of unsloth.models.llama.*load the model with transformers"):
        Scorer(model)
