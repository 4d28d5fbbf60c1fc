"""The losses in NumPy and float64, computed from their formulas with plain loops.

Each takes the teacher's and the student's output, weights of the samples, and labels, and returns the loss of the batch.
"""

import math

import numpy as np


def numeric_gradient(function, x, epsilon=1e-6):
    """Returns the gradient of a scalar function of an array by central differences."""
    x = np.array(x, "float64")
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        kept = x[place]
        x[place] = kept + epsilon
        above = function(x)
        x[place] = kept - epsilon
        below = function(x)
        x[place] = kept
        gradient[place] = (above - below) / (2 * epsilon)
    return gradient


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def kl(p, q):
    return np.sum(p * np.log(p / q), -1)


def kl_of_logs(a, b):
    """Returns the KL divergence of distributions from their logarithms, which stay finite for large logits."""
    return np.sum(np.exp(a) * (a - b), -1)


def reduced(losses, w):
    """Averages positions, then the weighted losses. A weight per position multiplies the loss of that position."""
    if w.ndim == 1:
        losses = losses.reshape(len(losses), -1).mean(1)
    return float(np.sum(losses * w) / losses.size)


def from_space(x, space):
    return {"logits": lambda: x, "log_probabilities": lambda: x, "probabilities": lambda: np.log(x)}[space]()


def soft_targets(t, s, w, y=None, temperature=4.0, divergence="kl", standardize=False, teacher="logits", student="logits"):
    t, s = from_space(t, teacher), from_space(s, student)
    if standardize:
        t, s = ((x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) for x in (t, s))
    p, q = log_softmax(t / temperature), log_softmax(s / temperature)
    m = np.logaddexp(p, q) - math.log(2)
    losses = {
        "kl": lambda: kl_of_logs(p, q),
        "reverse_kl": lambda: kl_of_logs(q, p),
        "js": lambda: (kl_of_logs(p, m) + kl_of_logs(q, m)) / 2,
        "cross_entropy": lambda: -np.sum(np.exp(p) * q, -1),
    }[divergence]()
    return reduced(losses * temperature**2, w)


def soft_targets_gradient(t, s, temperature):
    """Analytic gradient of KL's mean over the batch: temperature * (q - p) / batch."""
    return temperature * (softmax(s / temperature) - softmax(t / temperature)) / len(s)


def decoupled_kd(t, s, w, y, temperature=4.0, alpha=1.0, beta=8.0, target="labels"):
    losses = np.zeros(len(s))
    for i in range(len(s)):
        p, q = log_softmax(t[i] / temperature), log_softmax(s[i] / temperature)
        c = int(y[i]) if target == "labels" else int(np.argmax(t[i]))
        rest = [k for k in range(len(p)) if k != c]
        others_p, others_q = np.logaddexp.reduce(p[rest]), np.logaddexp.reduce(q[rest])
        binary = kl_of_logs(np.array([p[c], others_p]), np.array([q[c], others_q]))
        shared = kl_of_logs(p[rest] - others_p, q[rest] - others_q)
        losses[i] = (alpha * binary + beta * shared) * temperature**2
    return reduced(losses, w)


def pearson(a, b, w):
    """Returns the weighted correlation; 0 where a side is constant."""
    a, b = a - np.average(a, weights=w), b - np.average(b, weights=w)
    spread = math.sqrt(np.average(a * a, weights=w) * np.average(b * b, weights=w))
    return np.average(a * b, weights=w) / spread if spread > 0 else 0.0


def dist(t, s, w, y=None, temperature=1.0, beta=1.0, gamma=1.0):
    log_p, log_q = log_softmax(t / temperature), log_softmax(s / temperature)
    p, q = np.exp(log_p), np.exp(log_q)
    rows = np.ones(p.shape[-1])
    inter = np.array([1 - pearson(a, b, rows) for a, b in zip(p.reshape(-1, p.shape[-1]), q.reshape(-1, q.shape[-1]), strict=True)])
    inter = inter.reshape(p.shape[:-1])
    rows_w = np.broadcast_to(w.reshape(w.shape + (1,) * (inter.ndim - w.ndim)), inter.shape).reshape(-1)
    intra = []
    for a, b in zip(log_p.reshape(-1, p.shape[-1]).T, log_q.reshape(-1, q.shape[-1]).T, strict=True):
        # Relative to the largest, so that improbable classes count as others do; below 1e-30 a probability counts as zero.
        a, b = (np.exp(x - x.max()) if x.max() > math.log(1e-30) else np.zeros(len(x)) for x in (a, b))
        intra.append(1 - pearson(a, b, rows_w))
    return temperature**2 * (beta * reduced(inter, w) + gamma * np.mean(intra) * w.mean())


def logit_matching(t, s, w, y=None, centered=False):
    if centered:
        t, s = t - t.mean(-1, keepdims=True), s - s.mean(-1, keepdims=True)
    return reduced(((s - t) ** 2).mean(-1), w)


def binary_soft_targets(t, s, w, y=None, temperature=1.0, teacher="logits"):
    if teacher == "probabilities":
        t = np.log(t / (1 - t))
    p, q, n, m = (-np.logaddexp(0, -x / temperature) for x in (t, s, -t, -s))
    losses = np.exp(p) * (p - q) + np.exp(n) * (n - m)
    return reduced(losses.sum(-1) * temperature**2, w)


def huber(d, delta=1.0):
    d = np.abs(d)
    return np.where(d <= delta, d**2 / 2, delta * (d - delta / 2))


def output_matching(t, s, w, y=None, loss="mse", delta=1.0):
    d = s - t
    losses = {"mse": d**2, "mae": np.abs(d), "huber": huber(d, delta)}[loss]
    return reduced(losses.mean(-1) if losses.ndim > 1 else losses, w)


def teacher_bounded(t, s, w, y, margin=0.0):
    losses = np.zeros(len(s))
    for i in range(len(s)):
        own, bound = np.sum((s[i] - y[i]) ** 2), np.sum((t[i] - y[i]) ** 2)
        losses[i] = own if own + margin > bound else 0.0
    return reduced(losses, w)


def pooled(x, sizes):
    """Averages windows from floor(i n / m) to ceil((i + 1) n / m), one dimension after the other."""
    for axis, size in enumerate(sizes, start=1):
        n = x.shape[axis]
        parts = [x.take(range(math.floor(i * n / size), math.ceil((i + 1) * n / size)), axis).mean(axis) for i in range(size)]
        x = np.stack(parts, axis)
    return x


def common(t, s):
    sizes = [min(a, b) for a, b in zip(t.shape[1:-1], s.shape[1:-1], strict=True)]
    return pooled(t, sizes), pooled(s, sizes)


def hint(t, s, w, y=None, loss="mse"):
    t, s = common(t, s)
    if loss == "cosine":
        losses = 1 - np.sum(t * s, -1) / (np.linalg.norm(t, axis=-1) * np.linalg.norm(s, axis=-1))
    else:
        losses = ((s - t) ** 2 if loss == "mse" else huber(s - t)).mean(-1)
    return reduced(losses, w)


def attention_transfer(t, s, w, y=None, power=2.0):
    maps = common(*((np.abs(x) ** power).mean(-1, keepdims=True) for x in (t, s)))
    a, b = (m.reshape(len(m), -1) / np.linalg.norm(m.reshape(len(m), -1), axis=1, keepdims=True) for m in maps)
    return reduced(((a - b) ** 2).sum(-1), w)


def attention_maps(t, s, w, y=None, heads="match", loss="mse"):
    if heads == "mean":
        t, s = t.mean(1, keepdims=True), s.mean(1, keepdims=True)
    losses = ((s - t) ** 2).mean(-1) if loss == "mse" else kl(t, s)
    return reduced(losses.mean(1), w)


def present(x, w):
    """Returns the vectors of the samples that are present, and their weights."""
    return x.reshape(len(x), -1)[w > 0], w[w > 0]


def similarity_preserving(t, s, w, y=None):
    n = len(w)
    (t, v), (s, _) = present(t, w), present(s, w)
    g, h = (x @ x.T / np.linalg.norm(x @ x.T, axis=1, keepdims=True) for x in (t, s))
    return float(sum(v[i] * v[j] * (g[i, j] - h[i, j]) ** 2 for i in range(len(v)) for j in range(len(v))) / n**2)


def relational(t, s, w, y=None, distance_weight=1.0, angle_weight=2.0):
    n = len(w)
    (t, v), (s, _) = present(t, w), present(s, w)
    k = range(len(v))

    def distances(x):
        d = np.array([[np.linalg.norm(x[i] - x[j]) for j in k] for i in k])
        return d / (d.sum() / max(len(v) * (len(v) - 1), 1))

    def angle(x, i, j, m):
        a, b = x[i] - x[j], x[m] - x[j]
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))

    dt, ds = distances(t), distances(s)
    distance = sum(v[i] * v[j] * huber(ds[i, j] - dt[i, j]) for i in k for j in k if i != j) / (n * (n - 1))
    angles = sum(
        v[i] * v[j] * v[m] * huber(angle(s, i, j, m) - angle(t, i, j, m))
        for i in k
        for j in k
        for m in k
        if len({i, j, m}) == 3 and angle_weight
    )
    return float(distance_weight * distance + angle_weight * angles / (n * (n - 1) * (n - 2)))


def probabilistic_transfer(t, s, w, y=None):
    n = len(w)
    (t, v), (s, _) = present(t, w), present(s, w)
    total = 0.0
    for i in range(len(v)):
        rest = [j for j in range(len(v)) if j != i]
        p, q = (np.array([v[j] * (x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) + 1) / 2 for j in rest]) for x in (t, s))
        total += v[i] * kl(p / p.sum(), q / q.sum())
    return float(total / n)


def correlation_congruence(t, s, w, y=None, kernel="gaussian", gamma=0.4, order=2):
    n = len(w)
    t, s = (x.reshape(n, -1) for x in (t, s))

    def relation(a, b):
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        if kernel == "bilinear":
            return cosine
        if order is None:
            return math.exp(-gamma * np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2))
        return sum(math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * cosine**p for p in range(order + 1))

    return float(sum(w[i] * w[j] * (relation(t[i], t[j]) - relation(s[i], s[j])) ** 2 for i in range(n) for j in range(n)) / n**2)


def contrastive(t, s, w, y=None, temperature=0.1, other_classes=False):
    n = len(w)
    t, s = (x.reshape(n, -1, x.shape[-1]).mean(1) for x in (t, s))
    total = 0.0
    for i in range(n):
        scores = [math.exp(s[i] @ t[j] / np.linalg.norm(s[i]) / np.linalg.norm(t[j]) / temperature) for j in range(n)]
        negatives = sum(w[j] * scores[j] for j in range(n) if j != i and not (other_classes and y[i] == y[j]))
        total -= w[i] * math.log(scores[i] / (scores[i] + negatives))
    return float(total / n)
