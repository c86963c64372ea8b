"""Every Python block of a page runs, in the order of the page; the pages' usual names stand for small things."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import uds_core as uds

PAGES = Path(__file__).parents[2] / "docs" / "pages"
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", flags=re.DOTALL | re.MULTILINE)
BLOCKS = {
    page.relative_to(PAGES).as_posix(): BLOCK.findall(page.read_text(encoding="utf-8")) for page in PAGES.rglob("*.md")
}
CODE = {
    page: "\n".join(re.sub(f"^{space}", "", code, flags=re.MULTILINE) for space, code in blocks)
    for page, blocks in BLOCKS.items()
    if blocks
}


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    head, hidden = uds.Head(rng.normal(size=(152_064, 4)).astype(np.float32)), rng.normal(size=(2, 6, 4))
    hidden, mask = hidden.astype(np.float32), np.ones((2, 6), bool)
    return {"uds": uds, "head": head, "hidden": hidden, "mask": mask, "logits": head(hidden)}


def training(folder: Path) -> dict[str, Any]:
    """What a script has when it comes to train."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tiny = pytest.importorskip("tiny")
    from uds_adapters.torch import BatchSelector

    model, policy = tiny.llama(), uds.UDS(keep=0.25, memory=16, dim=16)
    args = transformers.TrainingArguments(
        str(folder), max_steps=2, report_to=[], use_cpu=True, save_strategy="no", dataloader_pin_memory=False,
        per_device_train_batch_size=4, remove_unused_columns=False,
    )  # fmt: skip
    loader = [tiny.batch(4, seed=seed) | {"id": torch.arange(4)} for seed in range(2)]
    return {
        "model": model,
        "policy": policy,
        "args": args,
        "data": tiny.examples(16),
        "collator": tiny.collate,
        "loader": loader,
        "batch": tiny.batch(4),
        "select": BatchSelector(model, policy),
    }


@pytest.mark.parametrize("page", sorted(CODE))
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page, **arrays()}
    if "model" in CODE[page] or "batch[" in CODE[page]:
        names |= training(tmp_path / "run")
    if "id_field" not in CODE[page]:
        for batch in names.get("loader", []):
            del batch["id"]
    known = set(uds.names())
    exec(compile(CODE[page], f"docs/pages/{page}", "exec"), names)
    assert set(uds.names()) == known  # a page registers nothing that other tests would meet


def test_no_block_is_overlooked():
    for page in PAGES.rglob("*.md"):
        fences = page.read_text(encoding="utf-8").count("```python")
        assert fences == len(BLOCKS[page.relative_to(PAGES).as_posix()]), page
