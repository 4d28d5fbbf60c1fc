"""What a type checker is to say of a script that uses the public names. Nothing here is run: `make lint` checks it.

Each `type: ignore` is a mistake that the checker has to find: one that it no longer finds is reported as an unused comment.
"""

import pathlib
from typing import Any

import keras
from typing_extensions import assert_type

import tfdistill
from tfdistill import benchmarking, bridge, compress, losses, tflite
from tfdistill.distill import ChainSettings


def distil(teacher: keras.Model, student: keras.Model, x: Any, y: Any) -> tfdistill.Distiller:
    soft = losses.SoftTargets(losses.LinearSchedule(8.0, 2.0, steps=100), divergence="js")
    distiller = tfdistill.Distiller(teacher, student, [soft, losses.Hint("conv_4", "conv_2")], [1.0, 0.5], student_loss_weight=0.1)
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy", tfdistill.TeacherReport()])
    distiller.fit(x, y, callbacks=[tfdistill.BackupAndRestore(pathlib.Path("backup"), save_freq=500)])
    assert_type(soft, losses.SoftTargets)
    return assert_type(distiller, tfdistill.Distiller)


def distil_in_steps(teacher: keras.Model, student: keras.Model, x: Any) -> None:
    cache = tfdistill.soft_targets(teacher, x, "cache", options=tfdistill.CacheOptions(batch_size=32), log_fn=print)
    assert_type(cache, tfdistill.SoftTargetCache)
    assert_type(cache.directory, pathlib.Path)
    assert_type(cache.elements, int)
    settings = ChainSettings(losses=losses.SoftTargets(), epochs=2)
    tfdistill.assistants(teacher, [student], settings, x)
    tfdistill.warm_start(student, teacher, layers={"block_1": "block_2"})


def compress_model(student: keras.Model) -> keras.Model:
    prune = assert_type(compress.Prune.for_training(100, epochs=5, sparsity=0.5), compress.Prune)
    plan = assert_type(prune.plan(student), compress.Plan)
    assert_type(plan.row("conv_1").reason, str)
    assert_type(plan.rows[0], compress.LayerPlan)
    pruning = assert_type(prune.apply(student), bridge.AdoptedModel)
    return compress.QuantizeAware(weight_bits=4, exclude="stem*").apply(prune.strip(pruning))


def export(model: keras.Model, x: Any, y: Any) -> float:
    record = assert_type(
        tfdistill.export_tflite(model, pathlib.Path("m.tflite"), "int8", calibration=x, verify_on=(x, y)), tflite.ExportRecord
    )
    assert_type(record.size_bytes, int)
    assert_type(record.accuracy, float | None)
    assert_type(tfdistill.verify("m.tflite", model, x, y, variant="int8"), tflite.VerificationRecord)
    assert_type(tfdistill.census("m.tflite").weights, int)
    assert_type(record.inputs[0].scale, float | None)
    assert_type(tfdistill.load_model("m.keras"), keras.Model)
    timing = tfdistill.benchmark("m.tflite", benchmarking.Cpu(threads=2), shapes={"image": (1, 224, 224, 3)})
    for target in (
        benchmarking.Gpu(),
        benchmarking.Npu("openvino"),
        benchmarking.Delegate("lib.so", {"device": "usb"}),
        benchmarking.Micro(),
    ):
        assert_type(tfdistill.benchmark("m.tflite", target), benchmarking.BenchmarkRecord)
        assert_type(tfdistill.verify("m.tflite", model, x, target=target).engine, str)
    return assert_type(timing.p50_ms, float)


def mistakes(teacher: keras.Model, student: keras.Model, x: Any) -> None:
    losses.SoftTargets(standardize="yes")  # type: ignore[arg-type]
    losses.SoftTargets(divergence="kullback")  # type: ignore[arg-type]
    losses.SoftTarget()  # type: ignore[attr-defined]
    tfdistill.Distiller(teacher, student, losses.SoftTargets(), student_loss_weight="half")  # type: ignore[arg-type]
    tfdistill.Prune(0.5)  # type: ignore[attr-defined]
    compress.Prune(sparsity="much")  # type: ignore[arg-type]
    compress.QuantizeAware(weight_bits=3)  # type: ignore[arg-type]
    tfdistill.export_tflite(student, "m.tflite", "int7")  # type: ignore[arg-type]
    print(tfdistill.export_tflite(student, "m.tflite").bytes)  # type: ignore[attr-defined]
    tfdistill.benchmark("m.tflite", threads=2)  # type: ignore[call-arg]
    tfdistill.soft_targets(teacher, x, 7)  # type: ignore[arg-type]
    tfdistill.StopAtTarget("all")  # type: ignore[arg-type]


def describe(path: pathlib.Path) -> None:
    about = tflite.FileMetadata(author="Ada", labels=["cat", "dog"], normalization=tflite.Normalization(127.5, [127.5, 127.5, 127.5]))
    assert_type(tfdistill.add_metadata(path, about, replace=True), tflite.CensusRecord)
    found = assert_type(tfdistill.read_metadata(path), tflite.FileDescription | None)
    if found is not None:
        assert_type(found.labels, dict[str, tuple[str, ...]])
        tflite.FileMetadata(labels={"kind": [1, 2]})  # type: ignore[list-item]
