"""Intersection over union of boxes: how far those of a file lie from those of its Keras model, and both from the labels."""

import numpy as np

# Name of the task -> how its four numbers tell a box: two corners, a corner and a size, or a center and a size.
BOXES = {"boxes": "corners", "boxes_xywh": "corner and size", "boxes_center_xywh": "center and size"}


def box_iou(first, second, task="boxes"):
    """Computes the intersection over union of boxes, pair by pair.

    Args:
        first: Boxes (..., 4).
        second: Boxes of the same shape.
        task: One of `BOXES`. For corners it does not matter which axis comes first.

    Returns:
        Array (...): 0 to 1; 1 for two boxes that are both empty and equal.

    Example:
        >>> box_iou([[0.0, 0.0, 2.0, 2.0]], [[1.0, 0.0, 3.0, 2.0]]).round(3)
        array([0.333])
    """
    (low, high), (other_low, other_high) = (_corners(np.asarray(boxes, np.float64), BOXES[task]) for boxes in (first, second))
    sides = np.maximum(np.minimum(high, other_high) - np.maximum(low, other_low), 0.0)
    intersection = sides.prod(-1)
    areas = [(b - a).prod(-1) for a, b in ((low, high), (other_low, other_high))]
    union = areas[0] + areas[1] - intersection
    same = (low == other_low).all(-1) & (high == other_high).all(-1)
    return np.where(union > 0, intersection / np.where(union > 0, union, 1.0), same.astype(np.float64))


def _corners(boxes, form):
    first, second = boxes[..., :2], boxes[..., 2:]
    if form == "corners":
        return np.minimum(first, second), np.maximum(first, second)
    size = np.maximum(second, 0.0)
    low = first - size / 2 if form == "center and size" else first
    return low, low + size


def box_figures(expected, actual, labels, task):
    """Returns the fields of an `OutputComparison` about boxes.

    Args:
        expected: Boxes of the Keras model, (samples, ..., 4).
        actual: Those of the file.
        labels: Labels of the same shape, or None.
        task: One of `BOXES`.
    """
    between = box_iou(expected, actual, task)
    found = {"box_iou": float(between.mean()), "lowest_box_iou": float(between.min())}
    if labels is not None:
        labels = np.asarray(labels, np.float64).reshape(expected.shape)
        for name, boxes in (("labels_box_iou", actual), ("keras_labels_box_iou", expected)):
            found[name] = float(box_iou(labels, boxes, task).mean())
    return found
