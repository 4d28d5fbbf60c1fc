"""A student from the teacher itself: its own graph, narrower and with fewer blocks, begun from its most important channels."""

import functools
import math
import typing
import warnings

import keras

from tfdistill.compress import rebuild
from tfdistill.compress.channels.costs import MACS, PARAMETERS
from tfdistill.compress.channels.proof import require_equal
from tfdistill.compress.channels.resize import Resized
from tfdistill.compress.channels.scores import BY_WEIGHTS
from tfdistill.compress.channels.search import first_by_measuring, first_that_fits
from tfdistill.compress.file_bytes import int8_bytes
from tfdistill.compress.plan import opened_first
from tfdistill.compress.selection import Selection, selectors
from tfdistill.compress.shrink.depth import Shallower
from tfdistill.compress.shrink.width import Widths
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.utils import validate

_BYTES = "bytes"
_BUDGETS = {"params": PARAMETERS, "macs": MACS, "size_bytes": _BYTES}


def shrink_like(
    model: keras.Model,
    width: float | None = None,
    depth: float | None = None,
    *,
    params: int | None = None,
    macs: int | None = None,
    size_bytes: int | None = None,
    criterion: typing.Literal["l1", "l2", "bn_scale", "random"] = "l2",
    divisor: int = 8,
    exclude: Selection = None,
    seed: int = 0,
) -> keras.Model:
    """Makes a student of a teacher: the same graph with fewer channels and fewer of the blocks that repeat, begun from the teacher's weights.

    **Width** is the share of the channels that stays, in every layer the same (a multiplier of widths, as MobileNet has), rounded to multiples of `divisor` and
    never by more than a tenth down. Channels that are coupled go together, in the groups of `PruneChannels`, and those stay that count most. Inputs and outputs stay as
    they are. With the removed channels zero, the teacher gives the same outputs; that is compared on random input before the student is returned.

    **Depth** is the share of blocks that stays. A block is a part of the graph between two tensors that all paths go through, but for tensors that every
    block reads, such as a mask: a residual block, a layer of a transformer, convolution and activation of a plain net, a nested model. A chain is two or more
    blocks of equal layers and sizes, one behind the other. Of each chain at least one block stays, evenly spread: of six blocks with `depth=0.5` the first,
    third and fifth (Sanh et al. 2019, "DistilBERT", https://arxiv.org/abs/1910.01108). Blocks that change a size, of which a stage of a ResNet has one, stay.

    **A budget** chooses the width, after `depth`: the largest one within it. Where one step of the width would change several groups of channels, they change one by
    one, the last of the graph first.

    The student is a plain Keras 3 model of the same inputs and outputs, whose layers have the teacher's names; all its layers are trained, also those that are frozen
    in the teacher, and it is not compiled. A subclassed model becomes a functional one of its layers. The teacher is not changed.

    Args:
        model: The teacher: a built Keras 3 model.
        width: Share of the channels that stays, in (0, 1). None is 1 beside `depth` alone, and 0.5 if nothing else is given. Or
        params: largest number of parameters; or
        macs: largest number of multiply-accumulates for one example (see `tfdistill.profile`); or
        size_bytes: largest size of the int8 file. The file is made up to six times for that.
        depth: Share of the blocks of each chain that stays, in (0, 1). None leaves all.
        criterion: Which channels count most, by the weights, as in `PruneChannels`.
        divisor: Numbers of channels become a multiple of it. Kernels of int8 files are fast at multiples of 8. 1 is for any number.
        exclude: Layers whose channels and blocks stay: names, paths, patterns or predicates. Channels that are coupled to theirs stay as well.
        seed: Seed of `criterion="random"`.

    Returns:
        A Keras 3 model, called `"<name>_student"`.

    Raises:
        ConfigurationError: if arguments contradict each other or are out of range.
        ModelError: if it is no Keras 3 model or not built, nothing can get narrower, no block can be left out, or a budget cannot be met; it says which layers stay
            whole, and why.
        InvariantError: if the outputs are not those of the teacher with the removed channels zero.

    Warns:
        UserWarning: if some layers stay whole because their channels cannot be followed, or Keras does not have their classes.

    Example:
        >>> student = tfdistill.shrink_like(teacher, width=0.5)
        >>> student.get_layer("conv").filters, teacher.get_layer("conv").filters
        (8, 16)
        >>> distiller = tfdistill.Distiller(teacher, student, tfdistill.losses.SoftTargets(4.0))
        >>> tfdistill.shrink_like(teacher, params=200, divisor=1).count_params()
        178
    """
    budgets = {
        name: validate.whole_number(name, value)
        for name, value in (("params", params), ("macs", macs), ("size_bytes", size_bytes))
        if value is not None
    }
    given = {**({} if width is None else {"width": width}), **budgets}
    if len(given) > 1:
        raise ConfigurationError(
            f"shrink_like got {', '.join(f'{n}={v}' for n, v in given.items())}.", "one of width=, params=, macs= and size_bytes="
        )
    if width is not None:
        validate.share("width", width, zero=False, one=False)
    if depth is not None:
        validate.share("depth", depth, zero=False, one=False)
    validate.one_of("criterion", criterion, BY_WEIGHTS)
    divisor, seed = validate.whole_number("divisor", divisor), validate.whole_number("seed", seed, at_least=0)
    excluded = selectors(exclude, "exclude")
    rebuild.require_native(model, "shrink_like")
    student = model if depth is None else Shallower(model, depth, excluded).model
    if budgets or depth is None or width is not None:
        widths = Widths(student, criterion, divisor=divisor, exclude=excluded, seed=seed)
        _require_some(model, widths, divisor)
        count = widths.count(0.5 if width is None else width)
        if width is not None and count == 0:
            raise ModelError(
                f"width={width:g} makes no layer of '{model.name}' narrower: numbers of channels stay multiples of {divisor}.",
                f"a width below {math.floor(-1000 * widths.steps[0][0]) / 1000:g}",
                f"give a smaller width=, or a smaller divisor= (now {divisor})",
            )
        for name, limit in budgets.items():
            count = _for_budget(student, widths, name, limit, divisor)
            if count == 0 and depth is None:
                raise ModelError(
                    f"{name}={limit:,}: '{model.name}' is within it as it is.",
                    "less than the model has",
                    f"give a smaller {name}=, or width=",
                )
        student = _narrower(student, widths, widths.removal(count))
        _warn_of(widths, model)
    student.trainable = True
    student.name = f"{model.name}_student"
    return student


def _narrower(model, widths, removal):
    resized = Resized(model, widths.trace, removal)
    require_equal(model, widths.trace, removal, resized)
    return resized.model


def _require_some(model, widths, divisor):
    if not widths.steps:
        shown = "; ".join(f"'{paths[0]}': {reason}" for paths, reason in widths.left[:5])
        raise ModelError(
            f"shrink_like can make no layer of '{model.name}' narrower. {shown}.",
            "layers whose channels can be followed, of more than divisor= channels",
            opened_first(widths.hidden)
            + f"give a smaller divisor= (now {divisor}), or fewer layers in exclude=; or leave out width= and give depth=",
        )


def _for_budget(model, widths, name, limit, divisor):
    """Returns how many steps of the width a budget needs.

    Raises:
        ModelError: if it cannot be met, or has no meaning as sizes are free.
    """
    most, what = len(widths.steps), _BUDGETS[name]
    if what != PARAMETERS and widths.costs.free is not None:
        raise ModelError(
            f"The {what} of '{model.name}' are not known: a size is free at '{widths.costs.free}'.",
            "inputs of fixed sizes, the batch apart",
            "give width= or params=",
        )
    removal = functools.cache(widths.removal)

    def counted(count):
        return widths.costs.of(PARAMETERS if what == _BYTES else what, removal(count))

    def measured(count):
        return int8_bytes(Resized(model, widths.trace, removal(count)).model)

    if what == _BYTES:
        count, cost = first_by_measuring(most, counted, measured, limit)
    else:
        count = first_that_fits(most, counted, limit)
        cost = counted(count)
    if cost > limit:
        raise ModelError(
            f"{name}={limit:,} cannot be met in '{model.name}': at the smallest width, {cost:,} {what} stay.",
            f"at least {cost:,}",
            opened_first(widths.hidden)
            + f"ask for {name}={cost}; or a smaller divisor= (now {divisor}), fewer layers in exclude=, or depth=",
        )
    return count


def _warn_of(widths, model):
    if widths.hidden:
        shown = ", ".join(f"'{path}'" for path in widths.hidden[:5])
        stay = [*widths.hidden, *(path for paths, _ in widths.unknown for path in paths)]
        warnings.warn(
            f"shrink_like leaves {len(widths.hidden)} layers of '{model.name}' whole that are of other classes than Keras's: {shown}.\n"
            "Fix: take tfdistill.compress.open_layers(model), in which they are what is inside them; or say how they pass channels on, by "
            f"tfdistill.compress.register_channels; or leave them, and what meets them, so without this warning: exclude={stay!r}",
            UserWarning,
            stacklevel=3,
        )
    elif widths.unknown:
        shown = "; ".join(f"'{paths[0]}': {reason}" for paths, reason in widths.unknown[:5])
        names = [path for paths, _ in widths.unknown for path in paths][:5]
        warnings.warn(
            f"shrink_like leaves channels of '{model.name}' whole that cannot be followed ({len(widths.unknown)} groups). {shown}.\n"
            f"Fix: say how their layers pass channels on, by tfdistill.compress.register_channels; or leave them so without this warning: exclude={names!r}",
            UserWarning,
            stacklevel=3,
        )
