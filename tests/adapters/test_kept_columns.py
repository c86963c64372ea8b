"""Columns of the data set that reach the selector, through collators that drop them."""

import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")

from uds_adapters.kept_columns import KeptColumns  # noqa: E402


def examples(number=3):
    rows = tiny.examples(number)
    return [{**one, "id": 40 + i, "name": f"n{i}", "score": np.float32(i)} for i, one in enumerate(rows)]


def test_what_the_collator_drops_is_kept_one_entry_a_sample():
    batch = KeptColumns(tiny.collate, ["id", "name", "score"])(examples())
    assert batch["id"].tolist() == [40, 41, 42]
    assert batch["name"] == ["n0", "n1", "n2"]
    assert batch["score"].tolist() == [0, 1, 2]
    assert batch["input_ids"].shape[0] == 3


def test_what_the_collator_keeps_or_no_example_has_stays_as_it_is():
    def collate(rows):
        return {**tiny.collate(rows), "id": torch.tensor([one.pop("id") for one in rows]) + 1}

    batch = KeptColumns(collate, ["id", "absent"])(examples(1))
    assert batch["id"].tolist() == [41]
    assert "absent" not in batch


def test_a_single_example_has_one_entry():
    assert KeptColumns(tiny.collate, ["id"])(examples(1))["id"].tolist() == [40]


@pytest.mark.parametrize("mode", ["padded", "padding_free"])
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
def test_ids_and_ledgers_work_under_trl(tmp_path, mode):
    pytest.importorskip("trl")
    from trl.trainer.sft_config import SFTConfig
    from trl_data import MODES, data, tokenizer

    import uds_core as uds
    from uds_adapters.trl import UDSSFTTrainer

    numbered = data(mode, 16).map(lambda _, i: {"number": 100 + i}, with_indices=True)
    seen = []

    class Noting(UDSSFTTrainer):
        def _uds_chosen(self):
            super()._uds_chosen()
            seen.append(list(self.selector.last_ids))

    trainer = Noting(
        model=tiny.llama(),
        args=SFTConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            per_device_eval_batch_size=4,
            num_train_epochs=2,
            report_to=[],
            save_strategy="no",
            eval_strategy="epoch",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            **MODES[mode],
        ),
        train_dataset=numbered,
        eval_dataset=numbered,
        processing_class=tokenizer(),
        policy=uds.LossEMA(count=2),
        selection={"id_field": "number"},
    )
    collator = trainer.data_collator
    trainer.train()
    assert trainer.data_collator is collator
    assert [len(ids) for ids in seen] == [2] * 8
    assert {i for ids in seen for i in ids} <= set(range(100, 116))
    ledger = trainer.selector.state_dict()
    remembered = next(ledger[name] for name in ledger if name.endswith("ids"))
    assert set(range(100, 116)) <= set(remembered.tolist())  # each sample was scored under its own number


def test_packing_drops_the_ids_and_the_error_says_so():
    from uds_adapters.torch import BatchSelector

    with pytest.raises(ValueError, match=r"no 'number' \(`id_field`\).*where TRL packs, it drops all columns"):
        BatchSelector(tiny.llama(), "maxloss:count=1", id_field="number")(tiny.batch(2))
