"""Arrays of token ids and input embeddings for policies that choose without a forward pass."""

from __future__ import annotations

from typing import Any

import torch

import uds_core as uds

from ..batches import SampleView
from ..batches.entries import tokens
from . import models

__all__ = ["TokenReader"]


class TokenReader:
    """Read what a policy needs of its candidates' tokens: glances and sketches of n-grams.

    Parameters
    ----------
    model
        The bare model, whose input embedding table glances read; n-grams need none.
    needs
        Of the policy.

    Raises
    ------
    TypeError
        If glances are needed and the model has no input embedding table that can be read.
    """

    def __init__(self, model: torch.nn.Module, needs: uds.Needs) -> None:
        self._needs, self._shift = needs, not models.is_encoder_decoder(model)
        self._embeddings = _embeddings(model) if needs.glance else None

    def __call__(self, samples: SampleView, /) -> dict[str, torch.Tensor]:
        """Return the arguments of `uds.Candidates` that hold what is needed of the samples, by name."""
        if not (self._needs.glance or self._needs.ngrams or self._needs.ngram_counts):
            return {}
        ids, mask = self._own_tokens(samples)
        read: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            if self._needs.ngrams:
                read["ngrams"] = uds.ngram_sketch(ids, mask=mask)
            if self._needs.ngram_counts:
                read["ngram_counts"] = uds.ngram_counts(ids, mask=mask)
            if self._embeddings is not None:
                read["glance"] = self._glance(ids, mask, samples.labels)
        return read

    def _own_tokens(self, samples: SampleView) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the token ids (batch, time) that the model reads, and which of them are not padding."""
        ids = tokens(samples.batch)
        if ids.is_floating_point():
            msg = "this policy reads token ids, and the batch has none: add `input_ids` to it, or choose another policy"
            raise ValueError(msg)
        if not self._shift:  # the view's own mask is that of the decoder
            mask = samples.batch.get("attention_mask")
            return ids, None if mask is None else mask != 0
        return samples.arrange(ids[..., None])[..., 0], samples.mask

    def _glance(self, ids: torch.Tensor, mask: torch.Tensor | None, labels: torch.Tensor | None) -> torch.Tensor:
        table: Any = self._embeddings
        ids = ids.to(table.weight.device)
        mask = None if mask is None else mask.to(ids.device)
        labels = torch.full_like(ids, -100) if labels is None else labels.to(ids.device)
        if self._shift:
            return uds.glance(ids, labels, table.weight.detach(), mask=mask)
        # targets of a decoder stand in no row of what the encoder reads, even where both are of one length
        labels = torch.nn.functional.pad(labels, (0, 1), value=-100) if labels.shape == ids.shape else labels
        return uds.glance(ids, labels, table.weight.detach(), mask=mask)


def _embeddings(model: torch.nn.Module) -> torch.nn.Module:
    find = getattr(model, "get_input_embeddings", None)
    table = find() if callable(find) else None
    weight: Any = getattr(table, "weight", None)
    plain = isinstance(weight, torch.Tensor) and weight.ndim == 2 and weight.is_floating_point() and not weight.is_meta
    if not isinstance(table, torch.nn.Module) or not plain:
        msg = (
            f"this policy reads the input embedding table, and {type(model).__name__} has none that can be read "
            "(`get_input_embeddings().weight`, a matrix): choose a policy that reads no glances"
        )
        raise TypeError(msg)
    return table
