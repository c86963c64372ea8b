"""What `--model` takes: folders, LoRA folders with their base, names in the cache of huggingface_hub."""

import json
import shutil

import pytest
import torch
import transformers

from uds_adapters.lab import model_paths
from uds_adapters.lab import models as lab
from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer
from uds_adapters.lab.errors import LabError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base, and adapters on it that change its predictions."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = build_tokenizer(["some words"], vocab=300)
    with lab.quiet():
        build_model(tokenizer, seed=0, width=16, layers=1).save_pretrained(folder / "base")
        tokenizer.save_pretrained(folder / "base")
        model = lab.with_lora(lab.load_model(folder / "base"), rank=3, seed=0)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
        model.save_pretrained(folder / "adapters")
    return folder


@pytest.fixture
def adapters(folders, tmp_path):
    shutil.copytree(folders, tmp_path, dirs_exist_ok=True)
    configure(tmp_path / "adapters", base_model_name_or_path="../base")
    return tmp_path / "adapters"


def configure(folder, **values):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(3, 12)[None]).logits


def hub(home, name, folder, revision="0" * 40):
    """Put a model into a cache as huggingface_hub does."""
    place = home / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / revision)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(revision, encoding="utf-8")
    return place / "snapshots" / revision


@pytest.fixture
def cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_merged_or_trained_on(adapters):
    merged, trained = lab.load_model(adapters), lab.load_model(adapters, lora=True)
    assert not torch.allclose(logits(merged), logits(lab.load_model(adapters.parent / "base")), atol=1e-3)
    torch.testing.assert_close(logits(merged), logits(trained), rtol=1e-4, atol=1e-4)
    assert all(weight.requires_grad for weight in merged.parameters())
    assert all(("lora_" in name) == weight.requires_grad for name, weight in trained.named_parameters())
    assert lab.with_lora(trained, rank=8, seed=0) is trained
    assert trained.peft_config["default"].r == 3


def test_what_is_saved_of_merged_adapters_is_a_plain_model(adapters, tmp_path):
    model = lab.load_model(adapters)
    saved = lab.save(model, tokenizer=lab.load_tokenizer(adapters), base=adapters, folder=tmp_path / "out")
    assert saved.kind == "model"
    found = transformers.AutoModelForCausalLM.from_pretrained(saved.folder)
    torch.testing.assert_close(logits(found), logits(model))


def test_adapters_that_were_trained_on_name_their_base(adapters, tmp_path):
    model = lab.load_model(adapters, lora=True)
    saved = lab.save(model, tokenizer=lab.load_tokenizer(adapters), base=adapters, folder=tmp_path / "out")
    assert (saved.kind, saved.base.resolve()) == ("adapters", adapters.parent / "base")
    found = transformers.AutoModelForCausalLM.from_pretrained(saved.folder)
    torch.testing.assert_close(logits(found), logits(model))
    assert model_paths.adapter_base(saved.folder).resolve() == adapters.parent / "base"


def test_where_the_base_is_looked_for(adapters, monkeypatch, cache, tmp_path):
    base = adapters.parent / "base"
    for text in ("../base", str(base)):
        configure(adapters, base_model_name_or_path=text)
        assert model_paths.adapter_base(adapters).resolve() == base
    monkeypatch.chdir(adapters.parent)
    configure(adapters, base_model_name_or_path="base")
    assert model_paths.adapter_base(adapters).resolve() == base
    snapshot = hub(cache, "some/model", base)
    configure(adapters, base_model_name_or_path="some/model")
    assert model_paths.adapter_base(adapters) == snapshot
    model = lab.load_model(adapters, lora=True)
    saved = lab.save(model, tokenizer=lab.load_tokenizer(adapters), base=adapters, folder=tmp_path / "out")
    written = json.loads((saved.folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert written["base_model_name_or_path"] == "some/model"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"base_model_name_or_path": None}, "names no base model"),
        ({"base_model_name_or_path": "/none"}, "the base model '/none' of the LoRA adapters in .* no folder /none"),
        ({"base_model_name_or_path": "../adapters"}, "is adapters itself"),
        ({"peft_type": "PREFIX_TUNING"}, "adapters of the kind PREFIX_TUNING: expected LoRA"),
    ],
)
def test_adapters_that_cannot_be_used(adapters, values, said):
    configure(adapters, **values)
    for load in (lab.load_model, lab.context, model_paths.adapter_base):
        with pytest.raises(LabError, match=said):
            load(adapters)


def test_a_configuration_that_is_damaged(adapters):
    for text in ("{", "[]"):
        (adapters / "adapter_config.json").write_text(text, encoding="utf-8")
        with pytest.raises(LabError, match=r"adapter_config\.json"):
            lab.load_model(adapters)


def test_what_else_is_read_of_an_adapter_folder(adapters):
    base = adapters.parent / "base"
    assert lab.vocabulary(adapters) == lab.vocabulary(base)
    assert lab.context(adapters) == lab.context(base)
    assert len(lab.load_tokenizer(adapters)) == len(lab.load_tokenizer(base))
    tokenizer = lab.load_tokenizer(base)
    tokenizer.chat_template = "own"
    tokenizer.save_pretrained(adapters)
    assert lab.load_tokenizer(adapters).chat_template == "own"


def test_a_fingerprint_covers_the_base(adapters):
    before = model_paths.fingerprint(adapters)
    assert model_paths.fingerprint(adapters) == before
    (adapters.parent / "base" / "new.txt").write_text("", encoding="utf-8")
    assert model_paths.fingerprint(adapters) != before


def test_names_in_the_cache(folders, cache):
    snapshot = hub(cache, "some/model", folders / "base")
    assert model_paths.locate("some/model") == snapshot
    assert model_paths.hub_name(snapshot) == "some/model"
    assert model_paths.hub_name(folders) is None
    lab.load_model(model_paths.locate("some/model"))


@pytest.mark.parametrize("name", ["other/model", "model"])
def test_names_that_are_not_there(cache, name):
    with pytest.raises(LabError) as error:
        model_paths.locate(name)
    for part in (f"no folder {name}", str(cache), "HF_HUB_OFFLINE=1 is set", f"hf download {name}"):
        assert part in str(error.value)


def test_names_that_the_hub_refuses(cache, monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def refused(name, **_):
        msg = f"no repository {name}\nmore"
        raise huggingface_hub.errors.HFValidationError(msg)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refused)
    with pytest.raises(LabError, match=r"gives no model of that name \(no repository some/model\)"):
        model_paths.locate("some/model")


def test_pickled_weights_are_fetched_only_where_there_are_no_others(cache, monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked = []

    def fetch(name, *, allow_patterns, ignore_patterns):
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert model_paths.locate("some/model") == tmp_path
    assert [any(".bin" in pattern for pattern in patterns) for patterns in asked] == [False, True]
    (tmp_path / "model.safetensors").write_bytes(b"")
    model_paths.locate("some/model")
    assert len(asked) == 3


@pytest.mark.parametrize("model", ["./none", "/none", "a/b/c", "none.gguf", "a/none.gguf", "../none"])
def test_paths_that_are_not_there(model):
    with pytest.raises(LabError, match=f"no folder {model.removeprefix('./')}: .*hf download NAME"):
        model_paths.locate(model)


def test_files_that_are_no_models(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(LabError, match="takes a folder, a GGUF file"):
        model_paths.locate(file)
    (tmp_path / "a.gguf").write_bytes(b"")
    with pytest.raises(LabError, match=r"holds no config\.json.*name one of them, such as .*a\.gguf"):
        model_paths.check_model(tmp_path)


def test_a_folder_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert model_paths.as_path_or_name("smollm2") == model_paths.locate("smollm2") == model_paths.Path("smollm2")
    assert model_paths.as_path_or_name("some/model") == "some/model"
    assert model_paths.as_path_or_name("./model") == model_paths.Path("model")
