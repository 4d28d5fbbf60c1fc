"""How many weights of a kernel, and which patterns of them, are to be zero after pruning: counted for the plan, checked afterwards."""

import dataclasses
import math
import typing

import numpy as np

from tfdistill.bridge.wrappers.pruning import Pattern, PrunedKernel
from tfdistill.compress import kernels
from tfdistill.compress.selection import settings_by_layer
from tfdistill.errors import ConfigurationError
from tfdistill.utils import validate

AVG: typing.Final = "avg"
MAX: typing.Final = "max"


@dataclasses.dataclass(frozen=True)
class SparsityTarget:
    """The sparsity that one kernel is to have after pruning.

    The kernel is seen as a matrix with one column per output channel and one row per weight that such a channel sums (space, then input
    channels).

    Attributes:
        kernel: `kernels.Kernel`.
        sparsity: Final share of its weights, or blocks, that are zero.
        pattern: `Pattern`.
    """

    kernel: kernels.Kernel
    sparsity: float
    pattern: Pattern

    @property
    def guarded(self):
        """Whether every column keeps a weight. It need not in an embedding, whose rows are looked up, not summed by columns."""
        return self.kernel.kind != kernels.LOOKUP

    @property
    def pruned_kernel(self):
        """The kernel as the pruning wrapper takes it."""
        return PrunedKernel(self.kernel.attribute, self.kernel.inputs, self.kernel.outputs, self.guarded)

    @property
    def _grid(self):
        height, width = self.pattern.block
        return -(-self.kernel.rows // height), -(-self.kernel.columns // width)

    @property
    def kept_units(self):
        """Number of weights, or blocks, that stay."""
        rows, columns = self._grid
        if self.pattern.n_of_m is not None:
            return self._kept_of_groups()
        # In float32, as the masks are computed.
        share = int(np.round(np.float32(rows * columns) * (np.float32(1) - np.float32(self.sparsity))))
        return max(share, columns if self.guarded else 1)

    @property
    def kept(self):
        """Largest number of weights that stay."""
        height, width = self.pattern.block
        return min(self.kept_units * height * width, self.kernel.size)

    def _kept_of_groups(self):
        n, m = self.pattern.n_of_m
        consecutive = self.kernel.shape[self.kernel.inputs[-1]]
        return self.kernel.size // consecutive * (consecutive // m * n + min(consecutive % m, n))

    def impossible(self):
        """Returns the reason why the kernel cannot be pruned so; None if it can."""
        setting = "n_of_m" if self.pattern.n_of_m is not None else "block" if self.pattern.block != (1, 1) else None
        if setting and self.kernel.kind == kernels.DEPTHWISE_FILTERS:
            return f"{self.kernel.attribute}: a depthwise filter has no matrix of inputs and outputs for {setting}="
        if setting == "n_of_m" and self.kernel.kind == kernels.LOOKUP:
            return f"{self.kernel.attribute}: the rows of an embedding are looked up, not summed"
        if self.kept_units >= math.prod(self._grid):
            return (
                f"{self.kernel.attribute}: none of its {self.kernel.size:,} weights can go, with {self.kernel.rows} for each output channel"
            )
        return None

    def notes(self):
        """Lists remarks for the plan about where the pattern does not fit the kernel evenly."""
        found = []
        rows, columns = self._grid
        if self.pattern.n_of_m is not None:
            consecutive, m = self.kernel.shape[self.kernel.inputs[-1]], self.pattern.n_of_m[1]
            if consecutive % m:
                found.append(f"{consecutive} inputs are no multiple of {m}: the last group has {consecutive % m}")
        elif self.pattern.block != (1, 1) and (self.kernel.rows, self.kernel.columns) != tuple(np.multiply(self._grid, self.pattern.block)):
            found.append(f"{self.kernel.rows} x {self.kernel.columns} is no multiple of the block: those at the edge are smaller")
        elif self.guarded and self.kept_units == columns and 1 / rows > 1 - self.sparsity:
            found.append(f"no sparser, as every one of {columns} channels keeps its largest weight")
        return found

    def violation(self, value):
        """Returns in which way the kernel `value` misses the target; None if it meets it."""
        matrix = self.kernel.matrix(value) != 0
        if self.pattern.n_of_m is not None:
            n, m = self.pattern.n_of_m
            consecutive = self.kernel.shape[self.kernel.inputs[-1]]
            padded = np.pad(matrix.reshape(-1, consecutive, self.kernel.columns), ((0, 0), (0, -consecutive % m), (0, 0)))
            most = int(padded.reshape(len(padded), -1, m, self.kernel.columns).sum(2).max())
            return f"{most} of {m} consecutive weights are not zero" if most > n else None
        if self.pattern.block != (1, 1):
            height, width = self.pattern.block
            grid = self._grid
            padded = np.pad(matrix, ((0, -self.kernel.rows % height), (0, -self.kernel.columns % width)))
            used = int(padded.reshape(grid[0], height, grid[1], width).any((1, 3)).sum())
            return f"{used} of {grid[0] * grid[1]} blocks are not zero" if used > self.kept_units else None
        if matrix.sum() > self.kept:
            return f"{100 * (1 - matrix.mean()):.1f} % zeros"
        return None

    def emptied(self, value):
        """Counts the output channels of the kernel `value` that have no weight left; 0 for a kernel that is not guarded."""
        return int(np.sum(~self.kernel.matrix(value != 0).any(0))) if self.guarded else 0


def pattern(block, pooling, n_of_m):
    """Makes a `Pattern` of the settings of `Prune`.

    Raises:
        ConfigurationError: if they contradict each other or are out of range.
    """
    for name, value in (("block", block), ("n_of_m", n_of_m)):
        if value is not None and not (
            isinstance(value, (tuple, list)) and len(value) == 2 and all(validate.is_whole_number(v, 1) for v in value)
        ):
            raise ConfigurationError(f"{name}={value!r}.", "two whole numbers of at least 1")
    if block is not None and n_of_m is not None:
        raise ConfigurationError(f"block={block!r} with n_of_m={n_of_m!r}.", "one pattern")
    if n_of_m is not None and n_of_m[0] >= n_of_m[1]:
        raise ConfigurationError(f"n_of_m={n_of_m!r}.", "fewer weights that stay than there are in a group, such as (2, 4)")
    if pooling not in (AVG, MAX) or (pooling != AVG and block is None):
        raise ConfigurationError(f"block_pooling={pooling!r} with block={block!r}.", f"'{AVG}' or '{MAX}', of a block")
    return Pattern(tuple(block or (1, 1)), pooling, None if n_of_m is None else tuple(n_of_m))


def shares(sparsity, pattern, layers):
    """Checks what a user gave for `sparsity=` beside `layers=`.

    Returns:
        A share, the default in place of None; or a dict of selector to share.

    Raises:
        ConfigurationError: if a share is out of range or is not that of the pattern, or a dict does not select.
    """
    own = None if pattern.n_of_m is None else 1 - pattern.n_of_m[0] / pattern.n_of_m[1]
    if sparsity is None:
        return own or 0.5
    sparsity, given = settings_by_layer("sparsity", sparsity, "shares", layers)
    for share in given:
        if isinstance(share, (bool, str)) or not 0 < share < 1:
            raise ConfigurationError(f"sparsity={sparsity!r}.", "a share of zeros above 0 and below 1", validate.as_share(share))
        if own is not None and not np.isclose(share, own):
            raise ConfigurationError(
                f"sparsity={sparsity!r} with n_of_m={pattern.n_of_m}.", f"{own:g}, which the pattern leaves", "leave out sparsity="
            )
    return sparsity
