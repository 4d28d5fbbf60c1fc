"""Skips the batches of an epoch that were trained before an interruption."""

from tfdistill.graph.epochs import skip


class Skipping:
    """Replaces a model's train function while batches are skipped that were trained before.

    Args:
        train_function: The model's train function.
        steps: Number of batches in one execution of it.
        logs: Logs that it returns.
        run_first: Whether the first execution trains: the first step makes variables, such as those of metrics.
    """

    def __init__(self, train_function, steps, logs, run_first):
        self.train_function, self._steps, self._logs, self._run = train_function, steps, logs, run_first

    def __call__(self, iterator):
        if self._run:
            self._run = False
            self.train_function(iterator)
        else:
            skip(iterator, self._steps)
        return self._logs
