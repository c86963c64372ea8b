"""Liger's fused cross-entropy makes no logits in training; scoring runs the model's own head all the same."""

import importlib
import os

import pytest
import tiny

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run on the CPU; read when Triton is imported
liger = pytest.importorskip("liger_kernel.transformers", reason="needs liger-kernel and triton", exc_type=ImportError)

import uds_core as uds  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
POLICY = uds.UDS(keep=0.5, memory=16, dim=16)


def patched(model):
    """The fused loss alone: Triton's interpreter cannot run Liger's other kernels."""
    patch = importlib.import_module("liger_kernel.transformers.monkey_patch")._apply_liger_kernel_to_instance
    patch(model=model, rope=False, rms_norm=False, swiglu=False, fused_linear_cross_entropy=True)
    return model


@pytest.mark.filterwarnings("ignore")  # Liger calls transformers by names that it has deprecated
def test_the_choice_and_the_gradient_are_those_without_liger():
    chosen, gradients = [], []
    for model in (tiny.llama().to(DEVICE), patched(tiny.llama().to(DEVICE))):
        select = BatchSelector(model, POLICY)
        kept = {}
        for seed in range(3):
            kept = select({name: tensor.to(DEVICE) for name, tensor in tiny.batch(8, seed=seed).items()})
            chosen.append(list(select.last_indices))
        out = model.train()(**kept)
        out.loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert out.logits is None  # Liger's forward ran
    assert chosen[:3] == chosen[3:]
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-5
