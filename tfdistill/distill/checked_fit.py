"""`fit` and `evaluate` of a Distiller: the first batch is checked before any training, the teacher is frozen meanwhile."""

import typing

import keras
import tensorflow as tf

from tfdistill.distill.cache.position import following_epochs
from tfdistill.distill.objective import compatibility, first_batch
from tfdistill.distill.objective.first_labels import check_labels
from tfdistill.distill.progress import with_progress
from tfdistill.distill.teachers.black_box import own_errors
from tfdistill.errors import ConfigurationError
from tfdistill.graph.training import results_without_labels
from tfdistill.utils.types import Data, Tensor, Tensors


class CheckedFit(keras.Model):
    """Base of `Distiller`, for the methods that it has in place of Keras's."""

    def fit(
        self,
        x: Data = None,
        y: Data = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: typing.Any = None,
        validation_split: float = 0.0,
        validation_data: Data = None,
        shuffle: bool = True,
        class_weight: dict | None = None,
        sample_weight: Tensors = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: typing.Any = 1,
        **kwargs: typing.Any,
    ) -> keras.callbacks.History:
        """Trains the student; takes and returns what `keras.Model.fit` does.

        The first batch is checked before any training. The teacher is frozen meanwhile.

        Args:
            x: Inputs, or a `tf.data.Dataset`, `keras.utils.PyDataset` or generator of batches, also one joined with a `SoftTargetCache`.
            y: Labels; None where `x` holds them, or for training by the teacher alone.
            batch_size: Samples in a batch.
            epochs: Number of the epoch after which training ends.
            verbose: 0 for silence, 1 for a progress bar, 2 for one line for each epoch.
            callbacks: List of `keras.callbacks.Callback`.
            validation_split: Share of the data to validate on.
            validation_data: Data to validate on after each epoch.
            shuffle: Whether arrays are shuffled before each epoch.
            class_weight: Dict of class index to weight.
            sample_weight: Weights of the samples, `(samples,)`.
            initial_epoch: Number of the epoch at which training begins.
            steps_per_epoch: Batches in an epoch; None for all that there are.
            validation_steps: The same of the validation data.
            validation_batch_size: Samples in a batch of validation data.
            validation_freq: Number of epochs from one validation to the next.
            **kwargs: Arguments that a later Keras adds.

        Raises:
            DataError: if the first batch, or the teacher's outputs, are not finite, or there is no data. A `ValueError`.
            ModelError: if the models, or the features that a loss compares, do not fit each other. A `ValueError`.
            ConfigurationError: if the outputs are not of the kind that a loss or report takes. A `ValueError`.
        """
        if not self.compiled:
            raise ConfigurationError("You must call `compile()` before using the model.", "a compiled Distiller")
        compatibility.check_teacher_built(self.teacher)
        first_batch.require_as_many((x, y, sample_weight), "training")
        if isinstance(validation_data, (tuple, list)):
            first_batch.require_as_many(validation_data, "validation")
        x, batch = first_batch.peek(x, y, sample_weight, batch_size, put_back=not self.made_for_strategy)
        if batch is not None:
            self._check_first_batch(batch)
        kwargs.update(
            epochs=epochs,
            verbose=verbose,
            callbacks=with_progress(callbacks, verbose),
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            class_weight=class_weight,
            sample_weight=sample_weight,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
        )
        with self._freeze, own_errors(self.teacher), following_epochs(self, x, y, batch_size, **kwargs) as (args, kwargs):
            return super().fit(*args, **kwargs)

    def evaluate(
        self,
        x: Data = None,
        y: Data = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Tensors = None,
        steps: int | None = None,
        callbacks: typing.Any = None,
        return_dict: bool = False,
        **kwargs: typing.Any,
    ) -> typing.Any:
        """Computes the loss, its parts and the metrics on data, both models with `training=False`.

        Takes and returns what `keras.Model.evaluate` does.

        Args:
            x: As in `fit`.
            y: As in `fit`.
            batch_size: Samples in a batch.
            verbose: As in `fit`.
            sample_weight: As in `fit`.
            steps: Batches to evaluate; None for all that there are.
            callbacks: List of `keras.callbacks.Callback`.
            return_dict: Whether a dict of name to value is returned, instead of a list.
            **kwargs: Arguments that a later Keras adds.
        """
        callbacks = with_progress(callbacks, verbose)
        with own_errors(self.teacher):
            return super().evaluate(x, y, batch_size, verbose, sample_weight, steps, callbacks, return_dict, **kwargs)

    def compute_metrics(self, x: Tensors, y: Tensors, y_pred: Tensors, sample_weight: Tensors = None) -> dict[str, Tensor]:
        """Updates the metrics with a batch. Of a batch without labels the metrics of `compile` are left out, and only those.

        Args:
            x: A batch of inputs.
            y: Its labels, or None.
            y_pred: The student's outputs.
            sample_weight: Weights of the samples, or None.

        Returns:
            Dict of metric name to value.
        """
        return super().compute_metrics(x, y, y_pred, sample_weight) if y is not None else results_without_labels(self)

    def _check_first_batch(self, batch):
        """Checks a first batch before any training: the data every time, the models once after `compile`."""
        first_batch.check_finite(batch)
        first_batch.check_shapes(batch[0], self.student)
        if self._models_checked:
            return
        # Variables that are made here belong where the student's are.
        with self.distribute_strategy.scope():
            outputs = self._objective.check_first_batch(batch[0])
        check_labels(self, batch, outputs)
        self.built = True
        if not tf.distribute.has_strategy() and not self.made_for_strategy:
            self._make_variables(batch, outputs)
        self._models_checked = True

    def _make_variables(self, batch, outputs):
        """Makes the variables of the optimizer and of the metrics: TensorFlow traces a training step that makes variables twice."""
        x, y, sample_weight = batch
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_weights)
        if y is not None:
            self.compute_metrics(x, y, outputs.y_pred, sample_weight)
            self.reset_metrics()
