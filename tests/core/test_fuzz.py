"""Every public function on random inputs, sizes from 0: the same numbers or errors of ours on all libraries."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Backend
from fuzzing import LIBRARIES, assert_alike, flags, numbers, outcome, size, targets

import uds_core as uds
from uds_core._array import to_numpy
from uds_core.tradeoff import median, percentile, rank

Call = Callable[[Backend], Any]
Rng = np.random.Generator
METHODS = ["auto", "svd", "eigh", "polar", "randomized", "sampled", "frobenius"]


def given(library: Backend, x: np.ndarray | None, dtype: str | None = None) -> Any:
    return None if x is None else library.array(x, dtype)


class Logits:
    """Logits of random sizes: dense, or of a head, with or without a bias, a scale and a centre."""

    def __init__(self, rng: Rng, *, vocab: tuple[int, ...] = (0, 1, 1, 2, 3, 9)) -> None:
        self.batch, self.time, self.width = (size(rng) for _ in range(3))
        self.vocab = size(rng, vocab)
        self.shape = (self.batch, self.time)
        self.hidden = numbers(rng, self.batch, self.time, self.width)
        self.weight = rng.normal(size=(self.vocab, self.width))
        self.bias = rng.normal(size=self.vocab) if rng.random() < 0.3 else None
        self.scale = float(rng.choice([1.0, 1.0, 0.5, 0.0]))
        self.frozen = bool(rng.random() < 0.5)
        self.dense = rng.random() < 0.4
        self.values = numbers(rng, self.batch, self.time, self.vocab)
        self.mask = flags(rng, *self.shape)
        self.centre = str(rng.choice(["none", "none", "row"]))
        self.block_bytes = int(rng.choice([1, 64, 2**26]))

    def __call__(self, library: Backend) -> Any:
        if self.dense:
            return library.array(self.values)
        weight, bias = given(library, self.weight), given(library, self.bias)
        return uds.Head(weight, bias, self.scale, frozen=self.frozen)(library.array(self.hidden))

    def centred(self, library: Backend) -> Any:
        mask, labels = given(library, self.mask), None
        return uds.Candidates(self(library), mask=mask, labels=labels).logits.centred(self.centre)


def _norms(rng: Rng) -> Call:
    logits, method, rank = Logits(rng), str(rng.choice(METHODS)), size(rng, (1, 2, 32))
    options: Any = {"method": method, "rank": rank, "block_bytes": logits.block_bytes}
    return lambda library: uds.nuclear_norm(logits.centred(library), mask=given(library, logits.mask), **options)


def _bounds(rng: Rng) -> Call:
    logits, rank = Logits(rng), size(rng, (1, 2, 32))
    return lambda library: uds.nuclear_bounds(
        logits.centred(library), mask=given(library, logits.mask), rank=rank, block_bytes=logits.block_bytes
    )


def _frobenius(rng: Rng) -> Call:
    logits = Logits(rng)
    return lambda library: uds.frobenius_norm(
        logits.centred(library), mask=given(library, logits.mask), block_bytes=logits.block_bytes
    )


def _sketches(rng: Rng) -> Call:
    logits, kind, dim = Logits(rng), rng.integers(3), size(rng, (1, 2, 7, 64))
    kinds: Any = [uds.FourierSketch, uds.PairedSketch, uds.ShiftedSketch]
    options: dict[str, Any] = {"rank": (size(rng, (1, 3, 9)), dim)} if kind == 0 else {"dim": dim}
    time = size(rng, (1, 2, 512))

    def call(library: Backend) -> Any:
        sketch = kinds[kind](time=time, vocab=logits.vocab, **options)
        return sketch(logits.centred(library), mask=given(library, logits.mask))

    return call


def _losses(rng: Rng) -> Call:
    logits, reduction, which = Logits(rng), str(rng.choice(["mean", "sum"])), rng.integers(2)
    labels = targets(rng, *logits.shape, vocab=logits.vocab)
    options: Any = {"reduction": reduction, "block_bytes": logits.block_bytes}

    def call(library: Backend) -> Any:
        mask = given(library, logits.mask)
        if which:
            return uds.entropy(logits.centred(library), mask=mask, **options)
        return uds.cross_entropy(logits.centred(library), library.array(labels), mask=mask, **options)

    return call


def _gradients(rng: Rng) -> Call:
    logits, which, dim = Logits(rng), rng.integers(5), size(rng, (1, 2, 16))
    labels = targets(rng, *logits.shape, vocab=logits.vocab)
    block = {"block_bytes": logits.block_bytes}

    def call(library: Backend) -> Any:
        hidden: dict[str, Any] = {"hidden": library.array(logits.hidden)} if logits.dense else {}
        made = uds.HeadGradients(logits(library), library.array(labels), mask=given(library, logits.mask), **hidden)
        sketch = {"dim": dim, **block}
        works = [made.norms, made.logit_norms, made.products, lambda **_: made.sketch(**sketch), made.in_hidden]
        return works[which](**block)

    return call


def _layers(rng: Rng) -> Call:
    batch, others, width, out = (size(rng) for _ in range(4))
    times = size(rng), size(rng)
    mine = [
        (numbers(rng, batch, times[0], width), numbers(rng, batch, times[0], out)) for _ in range(size(rng, (1, 2)))
    ]
    theirs = [(numbers(rng, others, times[1], width), numbers(rng, others, times[1], out)) for _ in mine]
    alone = rng.random() < 0.5

    def call(library: Backend) -> Any:
        here, there = ([(library.array(a), library.array(b)) for a, b in side] for side in (mine, theirs))
        return uds.layer_products(here) if alone else uds.layer_products(here, there)

    return call


def _glances(rng: Rng) -> Call:
    batch, time, vocab, width = (size(rng) for _ in range(4))
    ids = rng.integers(-1, max(vocab, 1) + 1, size=(batch, time))
    labels = targets(rng, batch, time if rng.random() < 0.7 else size(rng), vocab=vocab)
    table, mask, prompt = rng.normal(size=(vocab, width)), flags(rng, batch, time), flags(rng, batch, time)
    dim = size(rng, (1, 2, 256))

    def call(library: Backend) -> Any:
        rows = {"mask": given(library, mask), "prompt": given(library, prompt)}
        glance = uds.glance(library.array(ids), library.array(labels), library.array(table), dim=dim, **rows)
        assert glance.shape == (batch, uds.glance_width(width, dim=dim))
        return glance

    return call


def _ngrams(rng: Rng) -> Call:
    batch, other, time = (size(rng) for _ in range(3))
    n, dim, masks = size(rng, (1, 2, 4)), size(rng, (1, 8)), (flags(rng, batch, time), flags(rng, other, time))
    ids = [rng.integers(0, 4, size=(rows, time)) for rows in (batch, other)]

    def call(library: Backend) -> Any:
        a, b = (
            uds.ngram_sketch(library.array(x), mask=given(library, mask), n=n, dim=dim)
            for x, mask in zip(ids, masks, strict=True)
        )
        return a, b, uds.jaccard(a, b)

    return call


def _learners(rng: Rng) -> Call:
    width = size(rng)
    learner = uds.Learner(forget=float(rng.choice([0.5, 1.0])), penalty=float(rng.choice([0.01, 1.0])))
    steps = [numbers(rng, size(rng), width) for _ in range(size(rng, (0, 1, 4)))]
    labels = [numbers(rng, len(step)) for step in steps]
    asked = numbers(rng, size(rng), width)

    def call(library: Backend) -> Any:
        state = learner.init(library.array(asked))
        for step, label in zip(steps, labels, strict=True):
            state = learner.learn(state, library.array(step), library.array(label))
        return learner.predict(state, library.array(asked))

    return call


def _choices(rng: Rng) -> Call:
    batch, kind = size(rng, (0, 1, 2, 5, 9)), rng.integers(3)
    scores = np.abs(numbers(rng, batch, bad=0.5))
    length = rng.integers(0, 4, size=batch)
    groups = rng.integers(0, 3, size=batch) if rng.random() < 0.4 else None
    sketches, radius = numbers(rng, batch, size(rng)), float(rng.choice([0.0, 0.5, 2.0]))
    word = ["keep", "count", "tokens"][rng.integers(2 if kind == 1 else 3)]
    budget = uds.Budget(**{word: {"keep": 0.4, "count": size(rng, (1, 3)), "tokens": size(rng, (1, 5))}[word]})

    def call(library: Backend) -> Any:
        rows = {"groups": given(library, groups, "int32"), "budget": budget}
        s, n = library.array(scores), library.array(length, "float32")
        if kind == 0:
            return uds.top_k(s, n, **rows)
        if kind == 1:
            return uds.gumbel_top_k(s, n, temperature=0.5, seed=(0, 1), **rows)
        return uds.greedy(s, library.array(sketches), n, radius=radius, **rows)

    return call


def _memories(rng: Rng) -> Call:
    capacity, dim, reservoir = size(rng, (1, 2, 5)), size(rng), rng.random() < 0.5
    pushes = [numbers(rng, size(rng), dim) for _ in range(size(rng, (0, 1, 4)))]
    asked = numbers(rng, size(rng), dim)
    distance: Any = str(rng.choice(["mean", "nearest", "softmin"]))
    neighbours = size(rng, (1, 8))

    def call(library: Backend) -> Any:
        points = library.array(asked)
        memory: Any = (uds.Reservoir if reservoir else uds.Memory).empty(capacity, dim, like=points)
        for rows in pushes:
            memory = memory.push(library.array(rows))
        return memory.filled, uds.diversity(points, memory, distance=distance, neighbours=neighbours)

    return call


def _arrays_of_memories(rng: Rng) -> Call:
    dim = size(rng)
    rows, asked, distance = (
        numbers(rng, size(rng), dim),
        numbers(rng, size(rng), dim),
        str(rng.choice(["mean", "nearest"])),
    )
    return lambda library: uds.diversity(library.array(asked), library.array(rows), distance=distance)  # type: ignore[arg-type]


def _tradeoffs(rng: Rng) -> Call:
    batch, alpha = size(rng), [0.7, "auto", "rank"][rng.integers(3)]
    utility, far, window = numbers(rng, batch), numbers(rng, batch), size(rng, (1, 2, 9))

    def call(library: Backend) -> Any:
        u, d = library.array(utility), library.array(far)
        spreads = uds.Spreads.empty(like=u, window=window).updated(u, d)
        ranks = rank(u), percentile(u, d), median(u), uds.spread(u)
        return uds.combine(u, d, alpha=alpha, spreads=spreads), ranks

    return call


def _distortions(rng: Rng) -> Call:
    logits, dim = Logits(rng), size(rng)
    sketches = numbers(rng, logits.batch, dim)
    # no copies: whether they count goes by rounding
    logits.hidden, logits.values = ((x.T * (1 + np.arange(logits.batch))).T for x in (logits.hidden, logits.values))

    def call(library: Backend) -> Any:
        found = uds.distortion(library.array(sketches), logits(library))
        return found[:-1]  # of equal distances, ranks go by rounding

    return call


def _candidates(rng: Rng) -> Call:
    logits = Logits(rng)
    labels, rows = targets(rng, *logits.shape, vocab=logits.vocab), str(rng.choice(["labels", "tokens", "all"]))
    ids, column = rng.integers(0, 99, size=logits.batch), numbers(rng, logits.batch)

    def call(library: Backend) -> Any:
        rows_of = {"mask": given(library, logits.mask), "labels": library.array(labels)}
        made = uds.Candidates(logits(library), ids=library.array(ids), loss=library.array(column), **rows_of)
        return made.lengths(rows), made.scored(rows), made.identity(), made.column("loss")

    return call


def _ledgers(rng: Rng) -> Call:
    ids, values, asked = rng.integers(0, 5, size=size(rng)), None, rng.integers(0, 5, size=size(rng))
    values = numbers(rng, len(ids))

    def call(library: Backend) -> Any:
        ledger = uds.Ledger.empty().enter(to_numpy(library.array(ids)), to_numpy(library.array(values)))
        ledger = ledger.enter(ids[:1], values[:1])
        again = uds.restore(uds.Ledger.empty(), uds.flatten(ledger))
        return ledger, again, ledger.look_up(to_numpy(library.array(asked)))

    return call


FUNCTIONS = [
    _norms,
    _bounds,
    _frobenius,
    _sketches,
    _losses,
    _gradients,
    _layers,
    _glances,
    _ngrams,
    _learners,
    _choices,
    _memories,
    _arrays_of_memories,
    _tradeoffs,
    _distortions,
    _candidates,
    _ledgers,
]


def check(make: Callable[[Rng], Call], seed: int, library: str) -> None:
    """Compare one library with NumPy on one random input."""
    call = make(np.random.default_rng(seed))
    expected = outcome(call, LIBRARIES["numpy"])
    low = "float64" not in LIBRARIES[library].floats
    assert_alike(outcome(call, LIBRARIES[library]), expected, rtol=2e-2 if low else 1e-5, atol=1e-2 if low else 1e-5)


NOISY = "ignore::RuntimeWarning"  # of NumPy, about numbers that are not finite on purpose


@pytest.mark.filterwarnings(NOISY)
@pytest.mark.parametrize("make", FUNCTIONS, ids=lambda make: make.__name__[1:])
def test_libraries_compute_what_numpy_computes(make):
    for seed in range(40):
        check(make, seed, "torch" if seed % 4 and "torch" in LIBRARIES else "strict")


@pytest.mark.slow
@pytest.mark.filterwarnings(NOISY)
@pytest.mark.parametrize("make", FUNCTIONS, ids=lambda make: make.__name__[1:])
def test_libraries_compute_what_numpy_computes_in_many_cases(make):
    for seed in range(100, 700):
        check(make, seed, "torch" if seed % 4 and "torch" in LIBRARIES else "strict")


@pytest.mark.slow
@pytest.mark.skipif("jax" not in LIBRARIES, reason="needs JAX")
@pytest.mark.filterwarnings(NOISY)
@pytest.mark.parametrize("make", FUNCTIONS, ids=lambda make: make.__name__[1:])
def test_jax_computes_what_numpy_computes(make):
    """In few cases: it compiles anew for each size."""
    for seed in range(3):
        check(make, seed, "jax")
