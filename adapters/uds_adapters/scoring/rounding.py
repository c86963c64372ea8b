"""Agreement of logits up to rounding."""

from __future__ import annotations

import torch

__all__ = ["agree", "allowed", "relative_errors"]


def agree(got: torch.Tensor, expected: torch.Tensor, *dtypes: torch.dtype) -> bool:
    """Return whether logits are equal up to the rounding of their dtypes, of `dtypes`, and of products in TF32."""
    most = max(allowed(got.dtype, expected.dtype, *dtypes), 2 * _coarse_products())
    return got.shape == expected.shape and float(relative_errors(got, expected)[0]) <= most


def relative_errors(got: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return the largest and mean relative difference of logits (2,), on their device, relative to each sample's.

    Values that are not finite must be so in both.
    """
    got, size = got.float(), expected.float().abs()
    sound = size < torch.inf
    size.nan_to_num_(0.0, 0.0, 0.0)  # in place, as all that follows: logits of some samples need memory
    usual = torch.linalg.vector_norm(size, dim=(1, 2), keepdim=True) / size[0].numel() ** 0.5
    difference = (got - expected).abs_().div_(size.add_(usual).clamp_(min=1e-30)).masked_fill_(~sound, 0.0)
    difference.masked_fill_(sound.ne_(torch.abs(got, out=size) < torch.inf), torch.inf)
    return torch.stack([difference.max(), difference.mean()])


def allowed(*dtypes: torch.dtype) -> float:
    """Return two roundings of the coarsest dtype; at least those of long sums in float32."""
    return max(2e-5, *(2 * torch.finfo(dtype).eps for dtype in dtypes))


def _coarse_products() -> float:
    """Return the rounding error of float32 products if TF32 is enabled, else 0."""
    matmul = torch.backends.cuda.matmul
    kind = getattr(matmul, "fp32_precision", None)  # since torch 2.9, where reading the old name may raise an error
    faster = matmul.allow_tf32 if kind is None else kind == "tf32"
    return 2.0**-10 if faster else 0.0
