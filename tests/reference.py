"""The slow, obvious oracle: NumPy in float64, one sample and one number at a time. Imports nothing of ours."""

import itertools
from collections import deque

import numpy as np


def scored_rows(logits, mask):
    """The scored rows of one sample (time, vocab), zeros elsewhere."""
    return np.where(mask[:, None], logits, 0.0)


def nuclear_norm(logits, mask):
    return np.array(
        [np.linalg.svd(scored_rows(x, m), compute_uv=False).sum() for x, m in zip(logits, mask, strict=True)]
    )


def frobenius_norm(logits, mask):
    return np.array([np.sqrt((scored_rows(x, m) ** 2).sum()) for x, m in zip(logits, mask, strict=True)])


def row_centred(logits):
    return logits - logits.mean(axis=-1, keepdims=True)


def position(mask):
    """Position of each row, counted from the first scored one."""
    first = np.flatnonzero(mask)[0] if mask.any() else len(mask)
    return np.maximum(np.arange(len(mask)) - first, 0)


def signs(seed, stream, block, shape):
    return np.random.default_rng([seed, stream, block]).integers(0, 2, size=shape, dtype=np.int8) * 2.0 - 1.0


def hartley(n):
    """The orthonormal Hartley matrix, (n, n)."""
    angle = 2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n
    return (np.cos(angle) + np.sin(angle)) / np.sqrt(n)


def rows_of(seed, side, n, rank):
    return np.sort(np.random.default_rng([seed, 2, side]).choice(n, size=min(rank, n), replace=False))


def fourier_sketch(logits, mask, *, time, rank, seed):
    """vec(G2 L G1^T) with both sides written out as matrices; positions beyond `time` wrap with fresh signs."""
    vocab = logits.shape[2]
    rows, columns = rows_of(seed, 0, time, rank[0]), rows_of(seed, 1, vocab, rank[1])
    right = np.sqrt(vocab / len(columns)) * hartley(vocab)[columns] * signs(seed, 1, 0, (vocab,))
    left_all = np.sqrt(time / len(rows)) * hartley(time)[rows]
    out = []
    for sample, m in zip(logits, mask, strict=True):
        left = np.zeros((len(rows), len(m)))
        for t, p in enumerate(position(m)):
            left[:, t] = left_all[:, p % time] * signs(seed, 0, p // 512, (512, 1))[p % 512, 0]
        out.append((left @ scored_rows(sample, m) @ right.T).ravel())
    return np.array(out)


def fold(vocab, buckets, seed):
    """F as a matrix: each run of columns is turned by a number of its own, and each column has a sign."""
    generator = np.random.default_rng([seed, 3])
    turns = generator.integers(0, buckets, size=int(np.ceil(vocab / buckets)))
    sign = generator.integers(0, 2, size=vocab, dtype=np.int8) * 2.0 - 1.0
    out = np.zeros((vocab, buckets))
    for token in range(vocab):
        out[token, (token % buckets + turns[token // buckets]) % buckets] = sign[token]
    return out


def paired_sketch(logits, mask, *, dim, seed):
    """u_j^T (L F) v_j / sqrt(d), with F written out as a matrix."""
    vocab = logits.shape[2]
    buckets = min(2 * dim, vocab)
    right = fold(vocab, buckets, seed) @ signs(seed, 1, 0, (buckets, dim))
    out = []
    for sample, m in zip(logits, mask, strict=True):
        left = np.reshape([signs(seed, 0, p // 512, (512, dim))[p % 512] for p in position(m)], (-1, dim))
        out.append((left * (scored_rows(sample, m) @ right)).sum(axis=0) / np.sqrt(dim))
    return np.array(out)


def shifted_sketch(logits, mask, *, dim, seed):
    """One bucket and one sign for each pair of position and column."""
    folded = fold(logits.shape[2], dim, seed)[:, np.random.default_rng([seed, 3, 1]).permutation(dim)]
    out = np.zeros((len(logits), dim))
    for i, (sample, m) in enumerate(zip(logits, mask, strict=True)):
        for row, p in zip(scored_rows(sample, m), position(m), strict=True):
            of_position = signs(seed, 0, p // 512, (512, 1))[p % 512, 0]
            for bucket, value in enumerate(row @ folded):
                out[i, (bucket + p) % dim] += of_position * value
    return out


def mean_distance(sketches, memory, *, nearest=None):
    """To all that is remembered, or to the `nearest` of it."""
    if len(memory) == 0:
        return np.zeros(len(sketches))
    return np.array([np.mean(sorted(np.linalg.norm(z - q) for q in memory)[:nearest]) for z in sketches])


def interquartile_range(values):
    values = [v for v in values if np.isfinite(v)]
    return np.percentile(values, 75) - np.percentile(values, 25) if values else 0.0


def best_first(scores, length):
    """By score, the lower index first among equals; then the empty samples, then those without a score."""

    def key(i):
        if np.isnan(scores[i]):
            return (2, 0.0, i)
        return (int(length[i] == 0), -scores[i], i)

    return sorted(range(len(scores)), key=key)


def kept(batch, keep):
    return min(batch, max(1, int(np.floor(keep * batch + 0.5))))


def cross_entropy(logits, labels):
    """Token mean over the rows with a target; 0 where there are none."""
    out = []
    for sample, targets in zip(logits, labels, strict=True):
        rows = [
            np.log(np.sum(np.exp(x - x.max()))) + x.max() - x[y]
            for x, y in zip(sample, targets, strict=True)
            if y != -100
        ]
        out.append(np.mean(rows) if rows else 0.0)
    return np.array(out)


def sampled_cross_entropy(logits, labels, ids, weights):
    """Token mean; of the other tokens only `ids` count, each `weights` times."""
    out = []
    for sample, targets in zip(logits, labels, strict=True):
        rows = []
        for x, y in zip(sample, targets, strict=True):
            if y != -100:
                others = sum(w * np.exp(x[v]) for v, w in zip(ids, weights, strict=True) if v != y)
                rows.append(np.log(np.exp(x[y]) + others) - x[y])
        out.append(np.mean(rows) if rows else 0.0)
    return np.array(out)


class UDS:
    """The policy with row-centred logits, step by step, a deque for the memory and lists for the spreads."""

    def __init__(self, *, keep, alpha, memory, dim, seed, weight=1.0, window=512, nearest: int | None = 8):
        self.keep, self.alpha, self.dim, self.seed, self.weight = keep, alpha, dim, seed, weight
        self.nearest = nearest
        self.memory = deque(maxlen=memory)
        self.utilities, self.diversities = deque(maxlen=window), deque(maxlen=window)

    def step(self, logits, mask):
        logits = row_centred(logits)
        root = np.sqrt(np.maximum(mask.sum(axis=1), 1))
        utility = nuclear_norm(logits, mask) / root
        sketches = paired_sketch(logits, mask, dim=self.dim, seed=self.seed) / root[:, None]
        diversity = mean_distance(sketches, self.memory, nearest=self.nearest)
        there = mask.any(axis=1)
        self.utilities.extend(utility[there])
        if self.memory:
            self.diversities.extend(diversity[there])
        if self.alpha == "auto":
            u, d = interquartile_range(self.utilities), interquartile_range(self.diversities)
            scores = (utility / u if u else 0 * utility) + self.weight * (diversity / d if d else 0 * diversity)
        else:
            scores = utility + self.alpha * diversity
        scores = np.where(there, scores, 0.0)
        chosen = best_first(scores, mask.sum(axis=1))[: kept(len(scores), self.keep)]
        self.memory.extend(sketches[i] for i in chosen if there[i])
        return chosen, scores


class Released:
    """The released algorithm with its Fourier matrices written out in complex numbers, and a deque for the queue."""

    def __init__(self, *, count, alpha, memory, signs, indices):
        self.count, self.alpha = count, alpha
        self.queue = deque(maxlen=memory)
        self.signs, self.indices = signs, indices

    def side(self, side):
        """(r, n): sqrt(n / r) times rows of Re(F D), F not normalised."""
        n, rows = len(self.signs[side]), self.indices[side]
        fourier = np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n)
        return np.sqrt(n / len(rows)) * np.real(fourier @ np.diag(self.signs[side]))[rows]

    def sketch(self, logits):
        """Samples right-filled with zero rows to the length of the time side."""
        left, right = self.side(0), self.side(1)
        filled = np.zeros((len(logits), left.shape[1], right.shape[1]))
        filled[:, : logits.shape[1]] = logits
        return np.array([(left @ (sample @ right.T)).ravel() for sample in filled])

    def step(self, logits):
        utility = np.array([np.linalg.svd(x, compute_uv=False).sum() for x in logits])
        sketches = self.sketch(logits)
        scores = utility + self.alpha * mean_distance(sketches, self.queue)
        chosen = sorted(range(len(scores)), key=lambda i: -scores[i])[: self.count]
        self.queue.extend(sketches[chosen])
        return chosen, scores


def head_gradients(hidden, weight, bias, scale, labels):
    """Of each sample the gradient (vocab, width) of its token-mean loss in the head's weight, one row at a time."""
    out = []
    for h, targets in zip(hidden, labels, strict=True):
        total, rows = np.zeros(weight.shape), [t for t, y in enumerate(targets) if y != -100]
        for t in rows:
            logits = scale * (weight @ h[t] + bias)
            p = np.exp(logits - logits.max())
            p = p / p.sum()
            p[targets[t]] -= 1
            total += scale * np.outer(p, h[t])
        out.append(total / max(len(rows), 1))
    return np.array(out)


def gradient_sketch(gradients, *, dim, seed):
    """(F u_j)^T g v_j / sqrt(d), both sides written out as matrices."""
    _, vocab, width = gradients.shape
    buckets = min(2 * dim, vocab)
    left = fold(vocab, buckets, seed) @ signs(seed, 1, 0, (buckets, dim))
    right = signs(seed, 9, 0, (width, dim))
    return np.einsum("vd,bvh,hd->bd", left, gradients, right) / np.sqrt(dim)


def greats(gradients, validation, *, count, eta=None, weight=1.0):
    """Pick by pick, with the gradients themselves."""
    flat = [g.ravel() for g in gradients]
    goal = np.mean([v.ravel() for v in validation], axis=0)
    if eta is None:
        eta = weight * sum(abs(g @ goal) for g in flat) / sum(g @ g for g in flat)
    chosen = []
    while len(chosen) < count:
        gains = {
            i: eta * (g @ goal) - eta**2 * sum(g @ flat[k] for k in chosen)
            for i, g in enumerate(flat)
            if i not in chosen
        }
        chosen.append(max(gains, key=lambda i: gains[i]))
    return chosen, np.array([g @ goal for g in flat])


def divbs(gradients, *, count):
    """Pick by pick, with an orthonormal basis of what was picked: None where that spans all that is left."""
    flat = np.array([g.ravel() for g in gradients])
    goal, basis, chosen = flat.sum(axis=0), [], []
    while len(chosen) < count:
        scores = {}
        for i, g in enumerate(flat):
            h = g - sum((q @ g) * q for q in basis) if basis else g
            if i not in chosen and np.linalg.norm(h) > 1e-5 * np.linalg.norm(g):
                scores[i] = abs(h @ goal) / np.linalg.norm(h), h / np.linalg.norm(h)
        if not scores:
            return [*chosen, None]
        best = max(scores, key=lambda i: scores[i][0])
        chosen.append(best)
        basis.append(scores[best][1])
        goal = goal - (goal @ basis[-1]) * basis[-1]
    return chosen


def logit_gradient_norm(logits, labels):
    """Of each sample the norm of the gradient of its token-mean loss in its logits."""
    out = []
    for sample, targets in zip(logits, labels, strict=True):
        rows = []
        for x, y in zip(sample, targets, strict=True):
            if y != -100:
                p = np.exp(x - x.max())
                p = p / p.sum()
                p[y] -= 1
                rows.append(p)
        out.append(np.linalg.norm(rows) / len(rows) if rows else 0.0)
    return np.array(out)


def entropy(logits, mask):
    """Token mean over the rows of the mask; 0 where there are none."""
    out = []
    for sample, m in zip(logits, mask, strict=True):
        rows = []
        for x in sample[m]:
            p = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
            rows.append(-sum(q * np.log(q) for q in p if q > 0))
        out.append(np.mean(rows) if rows else 0.0)
    return np.array(out)


def percentile(values, among):
    return np.array([(sum(a < v for a in among) + sum(a <= v for a in among)) / (2 * len(among)) for v in values])


def corners(loss, unsure, count):
    """The samples in two opposite corners, widened until they hold at least `count`; nothing is ranked inside."""
    n = len(loss)
    # in units of 1 / 4n, where percentiles are whole numbers
    u, v = (np.round(4 * n * percentile(x, x)).astype(int) for x in (loss, unsure))
    for a in range(4 * n + 2):
        inside = ((u > 4 * n - a) & (v < a)) | ((u < a) & (v > 4 * n - a))
        if inside.sum() >= count:
            return set(np.flatnonzero(inside).tolist())
    return set(range(len(loss)))


def drawn(weights, *, count, seed, step):
    """K without replacement, each next one in proportion to its weight, by the noise that belongs to seed and step."""
    noise = np.random.default_rng([seed, 8, step, 0]).gumbel(size=len(weights))
    return np.argsort(-(np.log(weights) + noise), kind="stable")[:count].tolist()


class LossDrop:
    """A dictionary of first losses."""

    def __init__(self, *, keep):
        self.keep, self.first = keep, {}

    def step(self, ids, loss):
        for i, value in zip(ids, loss, strict=True):
            self.first.setdefault(int(i), value)
        scores = np.array([value - self.first[int(i)] for i, value in zip(ids, loss, strict=True)])
        return best_first(scores, np.ones(len(loss)))[: kept(len(loss), self.keep)], scores


class LossEMA:
    """A dictionary of averages."""

    def __init__(self, *, keep, blend, decay, seed):
        self.keep, self.blend, self.decay, self.seed = keep, blend, decay, seed
        self.averages, self.number = {}, 0

    def step(self, ids, loss):
        weights = []
        for i, value in zip(ids, loss, strict=True):
            average = self.averages.get(int(i), value)
            weights.append(self.blend * average + (1 - self.blend) * value)
            self.averages[int(i)] = self.decay * average + (1 - self.decay) * value
        self.number += 1
        count = kept(len(loss), self.keep)
        return drawn(np.array(weights), count=count, seed=self.seed, step=self.number - 1), np.array(weights)


class SelectiveBackprop:
    """Percentiles in a deque of losses; each sample is accepted on its own."""

    def __init__(self, *, beta, window, seed):
        self.beta, self.seed, self.number = beta, seed, 0
        self.losses, self.window = deque(maxlen=window), window

    def step(self, loss):
        size = self.window
        self.losses.extend(loss if len(loss) <= size else [loss[i * len(loss) // size] for i in range(size)])
        chance = percentile(loss, self.losses) ** self.beta
        limit = 1 - np.random.default_rng([self.seed, 7, self.number, 0]).random(len(loss), dtype=np.float32)
        self.number += 1
        return [i for i in range(len(loss)) if limit[i] <= chance[i]], chance, limit


class Fresh:
    """Random numbers, with a deque of distances and one of sketches, compared pair by pair."""

    def __init__(self, *, keep, threshold, memory, dim, seed):
        self.keep, self.threshold, self.dim, self.seed, self.number = keep, threshold, dim, seed, 0
        self.memory, self.usual = deque(maxlen=memory), deque(maxlen=512)

    def step(self, logits, mask):
        root = np.sqrt(np.maximum(mask.sum(axis=1), 1))
        sketches = paired_sketch(logits, mask, dim=self.dim, seed=self.seed) / root[:, None]
        there = [i for i in range(len(logits)) if mask[i].any()]
        nearest = {}
        for i in there:
            others = [*self.memory, *(sketches[j] for j in there if j < i)]
            nearest[i] = min((np.linalg.norm(sketches[i] - other) for other in others), default=np.inf)
        self.usual.extend(nearest.get(i, np.inf) for i in range(len(logits)))
        known = [d for d in self.usual if d < np.inf]
        limit = self.threshold * np.median(known) if known else 0.0
        scores = np.random.default_rng([self.seed, 7, self.number, 0]).random(len(logits), dtype=np.float32)
        self.number += 1
        for i in there:
            scores[i] -= nearest[i] <= limit
        chosen = best_first(scores, mask.sum(axis=1))[: kept(len(scores), self.keep)]
        self.memory.extend(sketches[i] for i in chosen if i in there)
        return chosen, scores


def most_similar(sample, others, everyone):
    """The highest share of equal numbers of a sketch with one of `others`; numbers that many share are left out.

    `everyone`: all sketches but the sample's own.
    """
    limit = 2 + int(0.05 * len(everyone))
    specific = [j for j, z in enumerate(sample) if sum(other[j] == z for other in everyone) <= limit]
    if len(specific) < 4:
        return float(sample in others and sample[0] != 2**31 - 1)
    share = [np.mean([sample[j] == other[j] != 2**31 - 1 for j in specific]) for other in others]
    return max(share, default=0.0)


class FreshTokens:
    """Random numbers, with a deque of sketches of n-grams, compared number by number."""

    def __init__(self, *, keep, threshold, memory, seed):
        self.keep, self.threshold, self.seed, self.number = keep, threshold, seed, 0
        self.memory = deque(maxlen=memory)

    def step(self, ngrams, length):
        ngrams = [tuple(row) for row in ngrams.tolist()]
        scores = np.random.default_rng([self.seed, 7, self.number, 0]).random(len(ngrams), dtype=np.float32)
        self.number += 1
        similar = np.zeros(len(ngrams))
        for i in (i for i in range(len(ngrams)) if length[i]):
            everyone = [*self.memory, *ngrams[:i], *ngrams[i + 1 :]]
            earlier = [*self.memory, *(ngrams[j] for j in range(i) if length[j])]
            similar[i] = most_similar(ngrams[i], earlier, everyone)
            scores[i] -= similar[i] >= self.threshold
        chosen = best_first(scores, length)[: kept(len(scores), self.keep)]
        self.memory.extend(ngrams[i] for i in chosen if length[i])
        return chosen, scores, similar


def ngram_counts(tokens, buckets, single, pair):
    """Counts of one sample's tokens and neighbours in buckets, by the hash functions `single` and `pair`."""
    counts = np.zeros(buckets)
    for token in tokens:
        counts[single(int(token))] += 1
    for a, b in itertools.pairwise(tokens):
        counts[pair(int(a), int(b))] += 1
    return counts


class Targeted:
    """Importance weights bucket by bucket, and a list of all counts so far."""

    def __init__(self, *, keep, target, noise, seed):
        self.keep, self.target, self.noise, self.seed, self.number = keep, target, noise, seed, 0
        self.pool, self.ratios = np.zeros(len(target)), deque(maxlen=512)

    def step(self, counts, length):
        self.pool = self.pool + counts.sum(axis=0)
        ratios, prior = [], len(self.target)
        for sample in counts:
            total = 0.0
            for b in np.flatnonzero(sample):
                q = self.pool[b] / self.pool.sum()
                p = (self.target[b] + prior * q) / (self.target.sum() + prior)
                total += sample[b] * np.log(p / q)
            ratios.append(total / np.sqrt(max(sample.sum(), 1)))
        self.ratios.extend(r for r, n in zip(ratios, length, strict=True) if n)
        noise = np.random.default_rng([self.seed, 8, self.number, 0]).gumbel(size=len(counts))
        self.number += 1
        scores = np.array(ratios) + self.noise * interquartile_range(self.ratios) * noise
        return best_first(scores, length)[: kept(len(scores), self.keep)], scores


class DiversityOnly:
    """The mean distance to the eight nearest in a deque, of row-centred logits."""

    def __init__(self, *, keep, memory, dim, seed):
        self.keep, self.dim, self.seed = keep, dim, seed
        self.memory = deque(maxlen=memory)

    def step(self, logits, mask):
        root = np.sqrt(np.maximum(mask.sum(axis=1), 1))
        sketches = paired_sketch(row_centred(logits), mask, dim=self.dim, seed=self.seed) / root[:, None]
        scores = mean_distance(sketches, self.memory, nearest=8)
        chosen = best_first(scores, mask.sum(axis=1))[: kept(len(scores), self.keep)]
        self.memory.extend(sketches[chosen])
        return chosen, scores


def glance(token_ids, targets, embeddings, mask, signs=(None, None)):
    """Means of embeddings and counts of each sample, token by token.

    `signs` (width, dim): they project the means of targets, and those of prompts.
    """
    out = []
    for ids, labels, own in zip(token_ids, targets, mask, strict=True):
        answer = [int(label) for label, mine in zip(labels, own, strict=True) if mine and label != -100]
        first = next((t for t, label in enumerate(labels) if own[t] and label != -100), len(ids))
        prompt = [int(token) for t, token in enumerate(ids) if own[t] and t <= first]
        row = []
        for tokens, drawn in ((answer, signs[0]), (prompt, signs[1]), (prompt[-8:], signs[1])):
            known = [embeddings[token] for token in tokens if 0 <= token < len(embeddings)]
            mean = np.mean(known, axis=0) if known else np.zeros(embeddings.shape[1])
            row += list(mean if drawn is None else mean @ drawn / drawn.shape[1] ** 0.5)
        shared = sum(token in prompt for token in answer) / max(len(answer), 1)
        out.append([*row, np.log1p(len(answer)), np.log1p(len(prompt)), 1 / max(len(answer), 1), shared])
    return np.array(out)


def ngrams(tokens, n):
    """The set of n-grams of one sample; of a short one all that it has."""
    tokens = tuple(int(token) for token in tokens)
    return {tokens[i : i + n] for i in range(max(len(tokens) - n + 1, 1))} if tokens else set()


def ridge(steps, features, *, forget, penalty, inertia):
    """Predictions of a weighted ridge regression, fitted anew to all `steps`, a list of (features, labels)."""
    steps = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in steps]
    steps = [(x, y) for x, y in steps if len(y)]
    if not steps:
        return np.zeros(len(features))
    weight = np.concatenate([np.full(len(y), forget ** (len(steps) - 1 - s)) for s, (_, y) in enumerate(steps)])
    level, centred = steps[0][1].mean(), []
    for s, (_, y) in enumerate(steps):
        level = inertia * level + (1 - inertia) * y.mean() if s else level
        centred.append(y - level)
    x, y = np.concatenate([x for x, _ in steps]), np.concatenate(centred)
    mean, label = np.average(x, axis=0, weights=weight), np.average(y, weights=weight)
    spread = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    scale = np.where(spread > 1e-9, 1 / np.maximum(spread, 1e-9), 0.0)
    z = (x - mean) * scale
    system = (z * weight[:, None]).T @ z / weight.sum() + penalty * np.eye(x.shape[1])
    slope = np.linalg.solve(system, (z * weight[:, None]).T @ (y - label) / weight.sum())
    return (features - mean) * scale @ slope + label + level


def vocabulary_entries(vocab, number, seed):
    """Entries of a vocabulary drawn without replacement, in order."""
    return np.sort(np.random.default_rng([seed, 13, 0, 0]).choice(vocab, size=number, replace=False))


def corrected_gram(before, after, index):
    """The Gram matrix of all rows `before`, plus its change as some rows show it, without its negative part."""
    grown = len(before) / len(index)
    gram = before.T @ before
    for v in index:
        gram = gram + grown * (np.outer(after[v], after[v]) - np.outer(before[v], before[v]))
    values, vectors = np.linalg.eigh(gram)
    return vectors * values.clip(0) @ vectors.T


def sampled_gram_error(logits, number):
    """Standard deviation of each entry of the Gram matrix (time, time) of `number` scaled random columns of `logits`.

    That of a total estimated from a sample without replacement: V^2 (1 - n / V) / n times the variance over columns.
    """
    vocab = logits.shape[1]
    products = np.einsum("iv,jv->ijv", logits, logits)
    return np.sqrt(vocab**2 * (1 - number / vocab) / number * products.var(axis=2, ddof=1))


def rds_embedding(hidden, mask):
    """Means of hidden states (batch, time, width), each weighted by its position among the sample's tokens."""
    embeddings = np.zeros((len(hidden), hidden.shape[2]))
    for i, (states, there) in enumerate(zip(hidden, mask, strict=True)):
        for position, state in enumerate(states[there], start=1):
            embeddings[i] += position * state
        embeddings[i] /= np.linalg.norm(embeddings[i]) or 1.0
    return embeddings


def in_turns(scores, length, count):
    """The best sample that is left, for each column in turn; empty ones last, NaN last of all."""
    picked = []
    while len(picked) < min(count, len(scores)):
        column = scores[:, len(picked) % scores.shape[1]]
        last = np.where(np.isnan(column), 2, length == 0)
        order = np.lexsort((-np.nan_to_num(column), last))
        picked.append(next(int(i) for i in order if i not in picked))
    return picked
