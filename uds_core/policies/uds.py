"""Utility-Diversity Sampling."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from .. import _options
from .._array import Array, array_namespace, at_least_one, constant, device, is_finite
from .._host import Host
from ..candidates import Candidates, Features, Selection
from ..choice import greedy, with_score
from ..gumbel import gumbel_top_k
from ..memory import Distance, Memory, Reservoir, distances, finite_points, pushed
from ..policy import Needs
from ..registry import register
from ..spectrum import SAMPLED_ENTRIES, NuclearMethod, frobenius_norm, nuclear_norm
from ..tradeoff import Alpha, Spreads, check_alpha, check_weight, combine, empty_window, median, shift_in
from ._budgeted import TokenBudgeted
from ._rated import Rating
from ._scored import Scored, is_storable
from ._sketched import MEMORY_DISTANCE, Sketched, check_fingerprint, fingerprint, length_divisor, memory_distance


class UDSState(NamedTuple):
    """State of UDS."""

    memory: Memory | Reservoir
    spreads: Spreads
    ratio: Array  # (window,): nuclear over Frobenius norm of the latest candidates
    nearest: Array  # (window,): distance of the latest candidates to the nearest other one of their pool
    step: int
    recipe: int  # fingerprint of the options of the remembered sketches

    def check(self, template: "UDSState", /) -> None:
        """Raise where the restored sketches cannot be compared with new ones."""
        check_fingerprint(self.recipe, template.recipe)


@register("uds")
@dataclass(frozen=True, kw_only=True, eq=False)
class UDS(Sketched, TokenBudgeted):
    r"""Keep the samples with the best utility and diversity.

    .. math:: s_i = \|L_i\|_* + \alpha \frac1{|N_i|} \sum_{j \in N_i} \|z_i - q_j\|_2

    L_i: the sample's logits matrix, scored rows only. z_i: its sketch. q_j: the sketches of recently chosen samples,
    of which N_i are the eight nearest; all of them in the paper's form, ``distance="mean"``.

    Parameters
    ----------
    keep, count, tokens, processed
        The budget; see `Budget`.
    alpha
        Factor on diversity, a pure number; ``"auto"`` puts both terms in units of their spread over past candidates, so
        that one setting serves all models; ``"rank"`` adds ranks within the pool.
    weight
        Under ``"auto"`` and ``"rank"``, the weight of diversity: 1 = both count the same.
    frobenius
        b in [0, 1]: utility is (1 - b) times the nuclear norm plus b times the Frobenius norm, the latter scaled by the
        running median of their ratio. 1 needs no singular values.
    rows
        ``"labels"``: rows whose target carries loss. ``"tokens"``: all that are not padding.
    length
        Utility and sketch are divided by 1 (``"none"``), by the root of the number of scored rows (``"sqrt"``), or by
        that number (``"mean"``). The raw nuclear norm grows with length.
    centre
        Subtracted from the logits first: nothing (``"none"``); each row's mean over the vocabulary (``"row"``), which
        changes no prediction; or an array, a fixed hidden row (width,) (of logits, (vocab,), where those are dense).
        In a pilot the first two did not differ beyond noise (-0.001 and -0.016 nats): docs/pages/evidence.md.
    in_batch
        ``"none"``; ``"mean"`` adds the mean distance to the other candidates to diversity; ``"greedy"`` lowers the
        scores of samples near to one already picked in the same step, so that no two copies enter one step.
    memory, replace
        Number of chosen samples remembered; the ``"fifo"`` latest, or a ``"reservoir"``, a uniform sample of all.
    distance
        To the memory: ``"nearest"``, ``"mean"`` or ``"softmin"``; see `diversity`. In a study the first was better than
        the paper's ``"mean"`` in six settings of six, by 0.002 to 0.055 nats: docs/pages/evidence.md.
    sketch, dim
        ``"paired"``, ``"shifted"`` or ``"fourier"`` (8 time rows), and the numbers in a sketch.
    method
        How the nuclear norm is computed; see `nuclear_norm`. With ``"sampled"``, sketches and the Frobenius norm are of
        the entries that are drawn, too.
    temperature
        None: the best are chosen. A number, in units of the score: samples are drawn, and the selection has importance
        weights; see `gumbel_top_k`.
    seed
        Seed of the sketch, of the reservoir and of the draws.

    Notes
    -----
    ``alpha=0.0, length="none", centre="none"`` is pure nuclear-norm selection. Through a prepared head, `examine` costs
    O(batch time width (width + dim)) and never computes the logits in full; `choose` costs O(batch memory dim).
    Source: UDS, arXiv 2510.16882.
    """

    alpha: Alpha = "auto"
    weight: float = 1.0
    frobenius: float = 0.0
    in_batch: Literal["none", "mean", "greedy"] = "none"
    replace: Literal["fifo", "reservoir"] = "fifo"
    distance: Distance = "nearest"
    method: NuclearMethod = "auto"
    temperature: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        check_weight(self.weight)
        _options.number("frobenius", self.frobenius, "in [0, 1]", fits=lambda b: 0 <= b <= 1)
        if self.temperature is None:
            return
        _options.number("temperature", self.temperature, "positive or None", fits=lambda tau: 0 < tau < float("inf"))
        if self.in_batch == "greedy" or self.budget.token_limit is not None:
            msg = "`temperature` draws samples one by one, which excludes `in_batch='greedy'` and budgets of tokens"
            raise ValueError(msg)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `sketch` (batch, dim), `length` (batch,), and `utility` or `frobenius` (batch,) or both."""
        logits, mask = candidates.logits.centred(self.centre), candidates.scored(self.rows)
        if self.method == "sampled":
            logits = logits.sampled(SAMPLED_ENTRIES, seed=self.seed)
        length = candidates.lengths(self.rows)
        divisor = length_divisor(length, self.length, dtype=logits.dtype)
        features = {"sketch": self.sketches(logits, mask, length), "length": length, **self.sizes(candidates)}
        if self.frobenius > 0:
            features["frobenius"] = frobenius_norm(logits, mask=mask) / divisor
        if self.frobenius < 1:
            features["utility"] = nuclear_norm(logits, mask=mask, method=self.method) / divisor
        return features

    def init(self, features: Features, /) -> UDSState:
        """Return an empty memory and empty windows."""
        sketch = features["sketch"]
        if self.replace == "fifo":
            memory = Memory.empty(self.memory, sketch.shape[1], like=sketch)
        else:
            memory = Reservoir.empty(self.memory, sketch.shape[1], like=sketch, seed=self.seed)
        nothing = empty_window(like=sketch)
        return UDSState(memory, Spreads.empty(like=sketch), nothing, nothing, 0, self.fingerprint())

    def prepare(self, state: UDSState | None, features: Features, rows: slice, /) -> Features:
        """Return `memory_distance` of the candidates `rows`; nothing while the memory is empty."""
        if state is None or not state.memory.size:
            return {}
        return {MEMORY_DISTANCE: memory_distance(features, state.memory, self.distance, rows=rows)}

    def choose(
        self, state: UDSState | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, UDSState]:
        """Choose by utility + alpha x diversity; then add the chosen, and no others, to the memory."""
        self.warn_without_budget()
        rating = self.rate(self.init(features) if state is None else state, features)
        beside: dict[str, Any] = {"storable": rating.storable}
        if self.in_batch == "greedy":
            beside |= {"radius": median(rating.state.nearest), "sketch": features["sketch"]}
        scored = Scored.of(features, rating.scores, parts=rating.parts, metrics=rating.metrics, groups=groups, **beside)
        drawn, weights = self._pick(rating.state, scored)
        indices = self.scored_only(drawn, scored.numbers)
        weights = None if weights is None else with_score(weights, drawn, scored.numbers)
        remembered = indices[scored.host["storable"][indices]]
        state = self.remember(rating.state, features, constant(remembered, like=rating.scores))
        return scored.selection(indices, weights), state

    def fingerprint(self) -> int:
        """Return the fingerprint of the options that sketches depend on."""
        known = super().fingerprint()
        return fingerprint(known, "sampled") if self.method == "sampled" else known

    @property
    def needs(self) -> Needs:
        """Logits; importance weights are applied where samples are drawn."""
        return Needs(divisible=True, weights=self.temperature is not None)

    @property
    def predictable(self) -> bool:
        """Whether `rate` alone decides, so that utilities can be predicted."""
        return self.temperature is None and self.in_batch != "greedy"

    def label(self, features: Features, /) -> Array:
        """Return the utility; the Frobenius norm where that alone counts."""
        return features["frobenius" if self.frobenius == 1 else "utility"]

    def from_label(self, label: Array, sketch: Array, length: Array, /) -> Features:
        """Return features whose utility is `label`."""
        return {"utility": label, "frobenius": label, "sketch": sketch, "length": length}

    def rate(self, state: UDSState, features: Features, /) -> Rating:
        """Return utility + alpha x diversity."""
        xp = array_namespace(features["sketch"])
        utility, ratio = self._utility(state, features)
        far, nearest = self._diversity(state, features)
        present = features["length"] > 0
        known = _known(utility, present), _known(far, present)
        spreads = state.spreads.updated(known[0], known[1] if state.memory.size or self.in_batch == "mean" else None)
        combined = combine(*known, alpha=self.alpha, weight=self.weight, spreads=spreads)
        scores = xp.where(present, combined.scores, xp.zeros_like(combined.scores))
        parts = {"utility": utility, "diversity": far}
        after = UDSState(state.memory, spreads, ratio, nearest, state.step, state.recipe)
        able = is_storable(features["sketch"], is_finite(scores) & present)
        return Rating(scores, parts, {"alpha": combined.alpha}, after, able)

    def remember(self, state: UDSState, features: Features, indices: Array, /) -> UDSState:
        """Return the state with the chosen samples in the memory."""
        memory = pushed(state.memory, features["sketch"], indices)
        return UDSState(memory, state.spreads, state.ratio, state.nearest, state.step + 1, state.recipe)

    def _utility(self, state: UDSState, features: Features) -> tuple[Array, Array]:
        """Return the utility of each candidate, and the window of ratios after them."""
        b = float(self.frobenius)
        if b == 0:
            return features["utility"], state.ratio
        if b == 1:
            return features["frobenius"], state.ratio
        xp = array_namespace(features["utility"])
        nuclear, root = features["utility"], features["frobenius"]
        present = root > 0
        ratios = xp.where(present, nuclear / xp.where(present, root, xp.ones_like(root)), xp.full_like(root, xp.nan))
        seen = shift_in(state.ratio, ratios)
        return (1 - b) * nuclear + b * median(seen) * root, seen

    def _diversity(self, state: UDSState, features: Features) -> tuple[Array, Array]:
        """Return the diversity of each candidate, and the window of nearest distances after them."""
        sketch = features["sketch"]
        far = memory_distance(features, state.memory, self.distance)
        if self.in_batch == "none":
            return far, state.nearest
        xp = array_namespace(sketch)
        mean, nearest = _among(sketch, features["length"] > 0)
        if self.in_batch == "mean":
            return far + mean, state.nearest
        return far, shift_in(state.nearest, xp.astype(nearest, sketch.dtype, copy=False))

    def _pick(self, state: UDSState, scored: Scored) -> tuple[Host, Host | None]:
        seed, tau = (self.seed, state.step), self.temperature
        given: dict[str, Any] = {"budget": self.budget, "groups": scored.groups}
        if tau is not None:
            drawn = gumbel_top_k(scored.numbers, scored.length, temperature=tau, seed=seed, **given)
            return drawn.indices, drawn.weights
        if self.in_batch == "greedy":
            sketch, radius = scored.host["sketch"], float(scored.host["radius"])
            return greedy(scored.numbers, sketch, scored.counted(self.budget), radius=radius, **given), None
        return scored.best(self.budget), None


def _known(values: Array, present: Array) -> Array:
    """Return `values` (batch,), NaN for samples without rows: they say nothing about the spread of the others."""
    xp = array_namespace(values)
    return xp.where(present, values, xp.full_like(values, xp.nan))


def _among(sketch: Array, present: Array) -> tuple[Array, Array]:
    """Return the mean and nearest distance (batch,) of each candidate to the others that are finite and not empty."""
    xp = array_namespace(sketch)
    if not sketch.shape[0]:
        return sketch[:, 0], sketch[:, 0]
    able = present & finite_points(sketch)
    apart = distances(sketch, xp.where(able[:, None], sketch, xp.zeros_like(sketch)))
    itself = xp.eye(sketch.shape[0], dtype=apart.dtype, device=device(apart)) > 0
    others = able[None, :] & ~itself
    number = xp.sum(xp.astype(others, apart.dtype), axis=1)
    total = xp.sum(xp.where(others, apart, xp.zeros_like(apart)), axis=1)
    mean = total / at_least_one(number)
    nearest = xp.min(xp.where(others, apart, xp.full_like(apart, xp.inf)), axis=1)
    return xp.astype(mean, sketch.dtype, copy=False), xp.where(able, nearest, xp.full_like(nearest, xp.nan))
