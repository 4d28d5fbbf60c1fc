"""Distils a large network to a small one on two workers that Ray starts, on this machine or on a cluster.

    pip install "tfdistill[ray,demo]"
    python examples/ray_train.py [--epochs 3]

Ray Train starts the workers and gives each its rank. They run `train_student` of two_workers.py. On a cluster, the teacher's file must be
where every worker can read it.
"""

import argparse
import json
import os
import pathlib
import tempfile


def worker(config):
    # Ray sets this variable for its workers, which makes TensorFlow use Keras 2. It is removed before TensorFlow is imported.
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    import ray.train
    from two_workers import train_student

    result = train_student(config["teacher"], config["epochs"])
    print(json.dumps(result), flush=True)  # Ray shows it in the terminal that started the training
    ray.train.report(result)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--teacher", help="a trained teacher's .keras file; trained here if it is left out")
    arguments = parser.parse_args()

    from ray.train import RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    with tempfile.TemporaryDirectory() as folder:
        path = arguments.teacher
        if path is None:
            from two_workers import train_teacher

            path = str(pathlib.Path(folder) / "teacher.keras")
            train_teacher(path)
        trainer = TensorflowTrainer(
            worker,
            train_loop_config={"teacher": path, "epochs": arguments.epochs},
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(name="distil", storage_path=folder),
        )
        trainer.fit()


if __name__ == "__main__":
    main()
