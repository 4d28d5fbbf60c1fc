"""Pairs the layers of a student with those of a teacher: finds repeated blocks by structure, and pairs them by order."""

import collections
import re

from tfdistill.errors import ModelError
from tfdistill.graph.traversal import kind, own_weights, sublayers, units

# A layer of the student that has weights of its own, and the teacher's layer whose weights it gets, or None with the reason.
Pairing = collections.namedtuple("Pairing", ["student", "teacher", "reason"], defaults=[None])


def _shapes(layer):
    return tuple(tuple(w.shape) for w in layer.weights)


def pair_composites(student, teacher):
    """Pairs the layers inside two layers of the same structure (or the layers themselves).

    Returns:
        List of `Pairing`s, or None if the two are built differently.
    """
    if kind(student) != kind(teacher):
        return None
    return [Pairing(s, t) for s, t in zip(units(student), units(teacher), strict=True)]


def pair_alternate(student, teacher):
    """Pairs the layers of two models, repeated blocks by order. See `warm_start`.

    Returns:
        List of `Pairing`s in the order of the student's layers.

    Raises:
        ModelError: if no repeated blocks are found that both models have.
    """
    found = []
    pairings = _pair_level([student], [teacher], found)
    if not found and (_repeats_more([student], [teacher]) or all(pair.teacher is None for pair in pairings)):
        raise ModelError(
            f"Neither repeated blocks nor equal layers were found that the student '{student.name}' shares with the teacher '{teacher.name}'.",
            "layers of the same kinds in the same order, or at least two consecutive blocks of the same layers and sizes in the teacher, and in the student "
            "at most as many of the same layers",
            "name the pairs yourself: layers={student layer: teacher layer}",
        )
    order = {id(unit): index for index, unit in enumerate(units(student))}
    return sorted(pairings, key=lambda p: order[id(p.student)])


def _pair_level(student, teacher, found):
    """Pairs two lists of sibling layers; appends the runs of blocks that it used to `found`."""
    if not student:
        return []
    run = _best_run(student, teacher)
    if run is not None:
        found.append(run)
        s, t, period, ours, theirs = run
        pairings = _pair_level(student[:s], teacher[:t], found)
        for block in range(ours):
            chosen = t + period * (block * theirs // ours)
            for position in range(period):
                pairings += pair_composites(student[s + block * period + position], teacher[chosen + position])
        return pairings + _pair_level(student[s + ours * period :], teacher[t + theirs * period :], found)
    if len(student) != len(teacher):
        return _pair_uneven(student, teacher, found)
    pairings = []
    for ours, theirs in zip(student, teacher, strict=True):
        inside = (sublayers(ours), sublayers(theirs))
        if all(inside):
            mine, other = own_weights(ours), own_weights(theirs)
            if mine:
                fits = len(mine) == len(other)
                pairings.append(Pairing(ours, theirs) if fits else Pairing(ours, None, f"'{theirs.name}' has other weights of its own"))
            pairings += _pair_level(*inside, found)
        elif kind(ours) == kind(theirs):
            pairings.append(Pairing(ours, theirs))
        else:
            reason = f"no counterpart: in its place the teacher has '{theirs.name}', a {type(theirs).__name__}"
            pairings += [Pairing(unit, None, reason) for unit in units(ours)]
    return pairings


def _pair_uneven(student, teacher, found):
    """Pairs two lists of sibling layers of different lengths: equal layers in their order, and between them runs of equal length."""
    ours, theirs = ([(kind(layer), _shapes(layer)) for layer in side] for side in (student, teacher))
    equal = _common_subsequence(ours, theirs)
    pairings, s, t = [], 0, 0
    for here, there in [*equal, (len(student), len(teacher))]:
        between = (student[s:here], teacher[t:there])
        if len(between[0]) == len(between[1]):
            pairings += _pair_level(*between, found)
        else:
            reason = f"no counterpart: {len(between[0])} layers of the student stand where the teacher has {len(between[1])}"
            pairings += [Pairing(unit, None, reason) for layer in between[0] for unit in units(layer)]
        if here < len(student):
            pairings += pair_composites(student[here], teacher[there])
        s, t = here + 1, there + 1
    return pairings


def _common_subsequence(ours, theirs):
    """Index pairs of a longest common subsequence of two lists; of several, the one that begins first."""
    lengths = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i in reversed(range(len(ours))):
        for j in reversed(range(len(theirs))):
            lengths[i][j] = lengths[i + 1][j + 1] + 1 if ours[i] == theirs[j] else max(lengths[i + 1][j], lengths[i][j + 1])
    places, i, j = [], 0, 0
    while i < len(ours) and j < len(theirs):
        if ours[i] == theirs[j]:
            places.append((i, j))
            i, j = i + 1, j + 1
        elif lengths[i + 1][j] >= lengths[i][j + 1]:
            i += 1
        else:
            j += 1
    return places


def _repeats_more(student, teacher):
    """Whether a block that repeats in the teacher, at any level, has more repetitions in a row in the student."""
    ours, theirs = ([(kind(layer), _shapes(layer)) for layer in side] for side in (student, teacher))
    if any(_longest_run(ours, theirs[start : start + period]) > blocks for start, period, blocks in _runs(theirs)):
        return True
    return len(student) == len(teacher) and any(_repeats_more(sublayers(a), sublayers(b)) for a, b in zip(student, teacher, strict=True))


def _best_run(student, teacher):
    """Finds the blocks that repeat in the teacher's list, and where the student's list has the same kind of blocks.

    Returns:
        (start in the student, start in the teacher, layers per block, student's blocks, teacher's blocks), or None.
    """
    kinds, own = [kind(layer) for layer in student], [_shapes(layer) for layer in student]
    ours, theirs = list(zip(kinds, own, strict=True)), [kind(layer) for layer in teacher]
    whole = [(k, _shapes(layer)) for k, layer in zip(theirs, teacher, strict=True)]
    best, best_score = None, None
    for start, period, blocks in _runs(whole):
        if _longest_run(ours, whole[start : start + period]) > blocks:
            continue  # here the student has more blocks than the teacher
        for s in range(len(student) - period + 1):
            if kinds[s : s + period] != theirs[start : start + period]:
                continue
            count = _repeats(ours, s, period)
            if count > blocks or (s >= period and ours[s - period : s] == ours[s : s + period]):
                continue
            names = [[layer.name for layer in teacher[b : b + period]] for b in range(start, start + blocks * period, period)]
            ends = (kinds[:s] == theirs[:start]) + (kinds[s + count * period :] == theirs[start + blocks * period :])
            score = (
                ends,  # the layers before and after the blocks are of equal kinds in both models
                count * period + blocks * period,  # as many layers as possible belong to the blocks
                all(len({re.sub(r"_?\d+", "", name) for name in column}) == 1 for column in zip(*names, strict=True)),
                -period,
                sum(_common_prefix(block) for block in names),  # names show where a block begins
                own[s : s + period] == [_shapes(layer) for layer in teacher[start : start + period]],
                -start,
                -s,
            )
            if best_score is None or score > best_score:
                best, best_score = (s, start, period, count, blocks), score
    return best


def _runs(signatures):
    """Yields every (start, period, number of blocks) where a pattern repeats at least twice in a row."""
    for period in range(1, len(signatures) // 2 + 1):
        for start in range(len(signatures) - 2 * period + 1):
            blocks = _repeats(signatures, start, period)
            if blocks > 1 and signatures[max(start - period, 0) : start] != signatures[start : start + period]:
                yield start, period, blocks


def _repeats(signatures, start, period):
    """Counts the repetitions in a row of the pattern that begins at `start`."""
    pattern, count = signatures[start : start + period], 1
    while signatures[start + count * period : start + (count + 1) * period] == pattern:
        count += 1
    return count


def _longest_run(signatures, pattern):
    """Returns the largest number of repetitions of a pattern in a row."""
    period = len(pattern)
    places = [s for s in range(len(signatures) - period + 1) if signatures[s : s + period] == pattern]
    return max((_repeats(signatures, s, period) for s in places), default=0)


def _common_prefix(names):
    """Number of characters with which all the names begin."""
    alike = [len(set(column)) == 1 for column in zip(*names, strict=False)]
    return alike.index(False) if False in alike else len(alike)
