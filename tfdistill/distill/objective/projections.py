"""Learned projections between features of different widths: trained with the student, owned by the distiller."""

import keras
import tensorflow as tf


class Projections(keras.layers.Layer):
    """Holds the projections of all terms of a distiller.

    They are no part of the student, so an exported student has none of them.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._made = {}
        self._shapes = {}
        self.built = True

    def make(self, index, term, teacher, student):
        """Makes the projections that a term needs, once, and returns the specs of the two features after them.

        Args:
            index: Number of the term.
            term: `Term`.
            teacher: The teacher's feature, or its spec; only the shape is used.
            student: The same of the student.

        Raises:
            ConfigurationError: if no projection can make the two match.
        """
        if str(index) not in self._shapes:
            self._add(index, term, _shape(teacher), _shape(student))
        for side, layer in self._of(index).items():
            if side == "teacher":
                teacher = keras.KerasTensor(layer.compute_output_shape(_shape(teacher)))
            else:
                student = keras.KerasTensor(layer.compute_output_shape(_shape(student)))
        return teacher, student

    def _add(self, index, term, teacher_shape, student_shape):
        layers = term.loss.projections(teacher_shape, student_shape)
        for side, layer in layers.items():
            layer.build(teacher_shape if side == "teacher" else student_shape)
        self._shapes[str(index)] = [list(teacher_shape), list(student_shape)]
        for side, layer in layers.items():
            self._made[f"{index}_{side}"] = layer

    def _of(self, index):
        return {side: self._made[f"{index}_{side}"] for side in ("teacher", "student") if f"{index}_{side}" in self._made}

    def apply(self, index, teacher, student):
        """Projects the two features of a term, where it has projections. No gradient reaches the teacher's feature itself."""
        for side, layer in self._of(index).items():
            if side == "teacher":
                teacher = layer(keras.ops.stop_gradient(teacher))
            else:
                # A copy without the mask: Keras warns where a masked tensor goes into a layer that supports no masks.
                student = layer(tf.identity(student))
        return teacher, student

    def shapes(self):
        """Returns the shapes of the features of each term, from which `restore` makes the same projections."""
        return {index: [list(shape) for shape in pair] for index, pair in self._shapes.items()}

    def restore(self, terms, shapes):
        """Makes the projections for shapes that `shapes()` returned, where they do not exist yet."""
        for index, (teacher_shape, student_shape) in shapes.items():
            if index not in self._shapes:
                self._add(int(index), terms[int(index)], tuple(teacher_shape), tuple(student_shape))


def _shape(feature):
    # A projection does not depend on the size of the batch.
    return (None, *tuple(feature.shape)[1:])
