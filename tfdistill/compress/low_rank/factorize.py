"""Factorizations of matrices and kernels into thin factors, in NumPy; CP by tensorly."""

import functools
import math
import warnings

import numpy as np

from tfdistill.errors import ModelError
from tfdistill.utils.finite import is_finite
from tfdistill.utils.optional import require

# A CP fit is degenerate if its components, which cancel each other then, have so many times the energy of the kernel together.
_DEGENERATE = 100.0
# The weights themselves decide between directions that the data does not tell apart.
_RIDGE = 1e-6


class DegenerateFit(Exception):
    """Raised where a CP fit is of no use.

    Args:
        reason: What it is like.
    """

    def __init__(self, reason):
        self.reason = reason
        super().__init__(reason)


class MatrixFactors:
    """The best factors A (m x r) and B (r x n) of a matrix W (m x n) for every rank r: they lose the least energy of what it gives.

    Without data that is the truncated SVD. With inputs X it is the rank-r map with the least error of X W: W times the projection onto the first r principal
    directions of its outputs (Zhang et al., "Accelerating very deep convolutional networks", 2016, https://arxiv.org/abs/1505.06798, section 3.1, without
    the shift of the mean).

    Args:
        matrix: W.
        gram: Sum of outer products of the outputs on data, an (n, n) array: (X W)^T (X W); None for the energy of W alone.

    Attributes:
        matrix: W as float64.
        energies: Energy of the outputs in each direction, descending.
    """

    def __init__(self, matrix, gram=None):
        self.matrix = np.asarray(matrix, "float64")
        rows, columns = self.matrix.shape
        # Projecting what comes in or what goes out is the same without data; the smaller side is faster.
        self._by_inputs = gram is None and rows < columns
        self._gram = gram
        self._products = self.matrix @ self.matrix.T if self._by_inputs else self.matrix.T @ self.matrix
        if gram is not None:
            self._products = gram + _RIDGE * np.trace(gram) / max(np.trace(self._products), np.finfo("float64").tiny) * self._products

    @functools.cached_property
    def _directions(self):
        return _basis(self._products)[:, : min(self.matrix.shape)]

    @functools.cached_property
    def energies(self):
        if self._gram is None:  # a third of the time of the directions
            found = np.linalg.eigvalsh(self._products)[::-1][: min(self.matrix.shape)]
        else:
            found = np.einsum("nr,nr->r", self._directions, self._gram @ self._directions)
        return np.maximum(found, 0)

    def losses(self):
        """Returns the shares of the energy that are lost at each rank from 0 on, from 1 to 0."""
        left = np.append(self.energies[::-1].cumsum()[::-1], 0.0)
        return left / left[0] if left[0] > 0 else left

    def factors(self, rank):
        """Returns A and B as float32, with columns of A as large as the rows of B."""
        directions = self._directions[:, :rank]
        first, second = (directions, directions.T @ self.matrix) if self._by_inputs else (self.matrix @ directions, directions.T)
        sizes = np.linalg.norm(second, axis=1) if self._by_inputs else np.linalg.norm(first, axis=0)
        balance = np.sqrt(np.where(sizes > 0, sizes, 1.0)) ** (1 if self._by_inputs else -1)
        return (first * balance).astype("float32"), (second / balance[:, None]).astype("float32")


class TuckerFactors:
    """Tucker-2 of a kernel: a core between bases of its input and output channels (Kim et al. 2016, https://arxiv.org/abs/1511.06530).

    Args:
        kernel: Array of shape (..., inputs, outputs).
    """

    def __init__(self, kernel):
        self._shape = kernel.shape
        self._kernel = np.asarray(kernel, "float64").reshape(-1, *kernel.shape[-2:])
        self._bases = [_basis(np.tensordot(self._kernel, self._kernel, ([0, 2 - mode], [0, 2 - mode]))) for mode in (0, 1)]
        core = np.einsum("sio,ia,ob->sab", self._kernel, *self._bases, optimize=True)
        self._kept = (core**2).sum(0).cumsum(0).cumsum(1)

    def losses(self):
        """Returns the shares of the energy that are lost at each pair of ranks from 0 on, from 1 to 0, before the factors are refined."""
        kept = np.pad(self._kept, ((1, 0), (1, 0)))
        return np.maximum(1 - kept / kept[-1, -1], 0.0) if kept[-1, -1] > 0 else np.zeros_like(kept)

    def factors(self, ranks, iterations=20, tolerance=1e-6):
        """Returns the basis of the inputs (inputs, r), the core (..., r, s) and the basis of the outputs (s, outputs), refined by higher-order orthogonal iteration."""
        first, second = self._bases[0][:, : ranks[0]], self._bases[1][:, : ranks[1]]
        before = 0.0
        for _ in range(iterations):
            reduced = np.tensordot(self._kernel, second, (2, 0))
            first = _basis(np.tensordot(reduced, reduced, ([0, 2], [0, 2])))[:, : ranks[0]]
            reduced = np.einsum("sio,ia->sao", self._kernel, first, optimize=True)
            second = _basis(np.tensordot(reduced, reduced, ([0, 1], [0, 1])))[:, : ranks[1]]
            kept = float((np.tensordot(reduced, second, (2, 0)) ** 2).sum())
            if kept - before <= tolerance * kept:
                break
            before = kept
        core = np.einsum("sio,ia,ob->sab", self._kernel, first, second, optimize=True)
        core = core.reshape(*self._shape[:-2], *ranks)
        return first.astype("float32"), core.astype("float32"), second.T.astype("float32")


def _basis(gram):
    """Returns the eigenvectors of a matrix of outer products, those of the largest eigenvalues first."""
    return np.linalg.eigh(gram)[1][:, ::-1]


def cp_factors(kernel, rank, seed=0, iterations=200):
    """Factors of the canonical polyadic decomposition of a kernel (Lebedev et al. 2015, https://arxiv.org/abs/1412.6553).

    Args:
        kernel: Array; each of its axes gets a factor.
        rank: Number of components.
        seed: Seed of the columns that the kernel does not give a start for.
        iterations: Largest number of rounds of alternating least squares.

    Returns:
        List of float32 arrays of shape (size of the axis, rank), all of one norm in each component.

    Raises:
        DegenerateFit: if the fit is not finite, no better than zeros, or has components that cancel each other.
        MissingPackageError: without tensorly.
    """
    decomposition = require("tensorly.decomposition", "factorize kernels by CP")
    kernel = np.asarray(kernel, "float64")
    energy = float((kernel**2).sum())
    if not energy:
        return [np.zeros((n, rank), "float32") for n in kernel.shape]
    unit_kernel = kernel / math.sqrt(energy)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # what is wrong with the fit is looked at below
        try:
            start = (np.ones(rank), _cp_start(unit_kernel, rank, seed))
            weights, factors = decomposition.parafac(unit_kernel, rank, n_iter_max=iterations, init=start, tol=1e-7)
        except np.linalg.LinAlgError as error:
            raise DegenerateFit(f"CP at rank {rank} has no fit: {error}") from error
    norms = [np.linalg.norm(factor, axis=0) for factor in factors]
    sizes = np.abs(weights) * np.prod(norms, axis=0)
    if not np.isfinite(sizes).all():
        raise DegenerateFit(f"CP at rank {rank} is degenerate: its fit is not finite")
    units = [np.divide(factor, norm, out=np.zeros_like(factor), where=norm > 0) for factor, norm in zip(factors, norms, strict=True)]
    units[0] = units[0] * np.sign(weights)
    scale = (sizes * math.sqrt(energy)) ** (1 / len(units))
    found = [(unit * scale).astype("float32") for unit in units]
    fit, excess = 1 - share_lost(kernel, cp_product(found)), float((sizes**2).sum())
    if excess > _DEGENERATE or not fit > 0:
        raise DegenerateFit(
            f"CP at rank {rank} is degenerate: it keeps {fit:.3g} of the energy, and its components have {excess:.3g} times that of the kernel"
        )
    return found


def _cp_start(kernel, rank, seed):
    """Returns the factors that a fit begins with: the leading left singular vectors of the unfoldings, then random columns.

    tensorly's own start of this kind takes the whole right singular matrix where the rank exceeds an axis: the square of the kernel's other axes in memory.
    """
    random, start = np.random.default_rng(seed), []
    for axis, size in enumerate(kernel.shape):
        others = [other for other in range(kernel.ndim) if other != axis]
        known = _basis(np.tensordot(kernel, kernel, (others, others)))[:, :rank]
        start.append(np.concatenate([known, random.standard_normal((size, rank - known.shape[1])) / math.sqrt(size)], axis=1))
    return start


def cp_product(factors):
    """Returns the kernel that CP factors make."""
    letters = "abcdefg"[: len(factors)]
    return np.einsum(",".join(f"{one}r" for one in letters) + f"->{letters}", *[np.asarray(x, "float64") for x in factors], optimize=True)


def share_lost(kernel, product):
    """Returns the energy of the difference of two arrays as a share of that of the first one; 0 for two of zeros."""
    kernel = np.asarray(kernel, "float64")
    energy, lost = float((kernel**2).sum()), float(((kernel - product) ** 2).sum())
    return lost / energy if energy else lost


def require_finite(name, kernel):
    """Refuses a kernel with NaN or infinity, before a decomposition does something with it.

    Args:
        name: Path of its layer.
        kernel: Array.
    """
    if not is_finite(kernel):
        raise ModelError(f"The kernel of '{name}' holds NaN or infinity.", "finite weights")
