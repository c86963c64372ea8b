"""The installed core, alone: scores through a head equal scores of logits, a policy chooses, a state is saved."""

import sys
from importlib.resources import files

import numpy as np

import uds_core as uds

rng = np.random.default_rng(0)
hidden, weight = rng.normal(size=(8, 16, 32)), rng.normal(size=(500, 32))
through = uds.Head(weight)(hidden)
np.testing.assert_allclose(uds.nuclear_norm(through), uds.nuclear_norm(hidden @ weight.T), rtol=1e-8)

policy = uds.UDS(keep=0.25)
selection, state = policy.choose(None, policy.examine(uds.Candidates(through)))
assert len(selection.indices) == 2
assert all(isinstance(array, np.ndarray) for array in uds.flatten(state).values())
assert files("uds_core").joinpath("py.typed").is_file()
assert "torch" not in sys.modules
