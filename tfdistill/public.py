"""The list of public names: what each room offers, the module that defines it, and what stands directly in `tfdistill`.

Everything else is internal and may change without notice. From this list come the rooms' lazy imports, the `__init__.pyi` files that editors and type
checkers read, and `docs/api.md`: `make api` writes both anew.
"""

# Room -> public name -> module that defines it, from the room on; from `tfdistill` on where it begins with a dot.
ROOMS = {
    "distill": {
        "BackupAndRestore": "backup.callback",
        "CacheOptions": "cache.options",
        "CallableTeacher": "teachers.callable",
        "ChainSettings": "chains.settings",
        "Distiller": "distiller",
        "Ensemble": "teachers.ensemble",
        "RemoteTeacher": "teachers.remote",
        "RetryPolicy": "teachers.remote",
        "SavedModelTeacher": "teachers.files",
        "SoftTargetCache": "cache.reader",
        "StopAtTarget": "callbacks",
        "TFLiteTeacher": "teachers.files",
        "Tap": "objective.taps",
        "Taps": "objective.taps",
        "TeacherReport": "metrics.teacher_report",
        "as_teacher": "teachers.convert",
        "assistants": "chains.sequential",
        "blockwise": "chains.blockwise",
        "born_again": "chains.sequential",
        "label_with_ray": "cache.ray_workers",
        "many_to_one": "chains.average",
        "mutual": "chains.mutual",
        "soft_targets": "cache.build",
        "warm_start": "initialization.warm_start",
    },
    "losses": {
        "AttentionMaps": "attention",
        "AttentionTransfer": "attention",
        "BinarySoftTargets": "logits",
        "ContrastiveRepresentation": "contrastive",
        "CorrelationCongruence": "kernels",
        "CosineSchedule": "schedules",
        "DIST": "correlation",
        "DecoupledKD": "decoupled",
        "HiddenStates": "features",
        "Hint": "features",
        "KnowledgeLoss": "base",
        "LinearSchedule": "schedules",
        "LogitMatching": "logits",
        "OutputMatching": "regression",
        "PiecewiseSchedule": "schedules",
        "ProbabilisticTransfer": "kernels",
        "RelationalKD": "relations",
        "SimilarityPreserving": "relations",
        "SoftTargets": "logits",
        "TeacherBounded": "regression",
    },
    "compress": {
        "ChannelCall": "channels.call",
        "ChannelLayerPlan": "channels.plan",
        "ChannelPlan": "channels.plan",
        "Cluster": "cluster.cluster",
        "LayerPlan": "plan",
        "LeaveWhole": "channels.call",
        "LowRank": "low_rank.low_rank",
        "LowRankLayerPlan": "low_rank.plan",
        "LowRankPlan": "low_rank.plan",
        "Plan": "plan",
        "Prune": "prune.prune",
        "PruneChannels": "channels.prune_channels",
        "Quantize": "quantize.calibrate",
        "QuantizeAware": "quantize.quantize_aware",
        "Step": "step",
        "register_channels": "channels.rules.table",
        "shrink_like": "shrink.shrink_like",
    },
    "bridge": {
        "AdoptedModel": "adopt.adopt",
        "ParityRecord": "parity.check",
        "adopt": "adopt.adopt",
        "check_parity": "parity.check",
        "host": "convert.hosted",
        "load_model": "load",
        "register_bridge": "convert.layers",
        "to_keras": "convert.to_keras",
        "to_tf_keras": "convert.to_tf_keras",
    },
    "graph": {
        "LayerProfile": "profiling",
        "ProfileRecord": "profiling",
        "named_layers": "names",
        "profile": "profiling",
    },
    "tflite": {
        "VARIANTS": ".convert.variants",
        "CensusRecord": ".convert.census",
        "ExportRecord": "export_record",
        "FileDescription": "metadata.read",
        "FileInspection": "inspection.inspect",
        "FileMetadata": "metadata.settings",
        "FileOperation": "inspection.inspect",
        "FileTensor": ".convert.file_tensors",
        "FloatIsland": "inspection.inspect",
        "IndexComparison": "verification.comparison",
        "InputDescription": "metadata.read",
        "ModelComparison": "verification.compare_models",
        "Normalization": "metadata.settings",
        "OutputComparison": "verification.comparison",
        "TargetShare": "inspection.inspect",
        "Tolerances": ".convert.variants",
        "UnalignedChannels": "inspection.inspect",
        "Variant": ".convert.variants",
        "VerificationRecord": "verification.verify",
        "add_metadata": "metadata.write",
        "census": ".convert.census",
        "check_preserved_structure": "inspection.preserved",
        "compare": "verification.compare_models",
        "export_tflite": "export",
        "inspect": "inspection.inspect",
        "read_metadata": "metadata.read",
        "verify": "verification.verify",
    },
    "benchmarking": {
        "BenchmarkRecord": "record",
        "Cpu": "targets.cpu",
        "Ssh": "targets.ssh",
        "Timing": "timing",
        "benchmark": "run",
    },
    "pipeline": {
        "LatencyRatio": "latency",
        "Road": "road",
        "under_teacher": "road",
    },
    "preflight": {
        "Finding": "findings",
        "Preflight": "findings",
        "check": "run",
    },
    "errors": {
        "BenchmarkError": "",
        "BridgeError": "",
        "BudgetExceededError": "",
        "ConfigurationError": "",
        "DataError": "",
        "ExportError": "",
        "InvariantError": "",
        "MissingPackageError": "",
        "ModelError": "",
        "RuntimeUnavailableError": "",
        "TfdistillError": "",
        "VerificationError": "",
    },
}
# Name in `tfdistill` itself -> its room.
TOP = {
    "BackupAndRestore": "distill",
    "CacheOptions": "distill",
    "Distiller": "distill",
    "Ensemble": "distill",
    "RemoteTeacher": "distill",
    "RetryPolicy": "distill",
    "SoftTargetCache": "distill",
    "StopAtTarget": "distill",
    "TeacherReport": "distill",
    "add_metadata": "tflite",
    "adopt": "bridge",
    "assistants": "distill",
    "benchmark": "benchmarking",
    "blockwise": "distill",
    "born_again": "distill",
    "census": "tflite",
    "check": "preflight",
    "compare": "tflite",
    "export_tflite": "tflite",
    "inspect": "tflite",
    "label_with_ray": "distill",
    "load_model": "bridge",
    "many_to_one": "distill",
    "mutual": "distill",
    "named_layers": "graph",
    "profile": "graph",
    "read_metadata": "tflite",
    "shrink_like": "compress",
    "soft_targets": "distill",
    "to_keras": "bridge",
    "to_tf_keras": "bridge",
    "under_teacher": "pipeline",
    "verify": "tflite",
    "warm_start": "distill",
}
# Old public path -> (new public path, version that brought the new name): `"tfdistill.losses.Old": ("tfdistill.losses.New", "0.2")`. The old name works and
# warns once (`tfdistill.utils.deprecation`); it is in no stub and on no page.
DEPRECATED: dict[str, tuple[str, str]] = {}


def module_of(room, name):
    """Returns the whole name of the module that defines a public name of a room."""
    module = ROOMS[room][name]
    return f"tfdistill{module}" if module.startswith(".") else f"tfdistill.{room}.{module}".rstrip(".")


def public_path(room, name):
    """Returns the name that users write: `tfdistill.NAME` where it stands there, else `tfdistill.ROOM.NAME`."""
    return f"tfdistill.{name}" if TOP.get(name) == room else f"tfdistill.{room}.{name}"


def homes(name):
    """Returns the public paths of everything that has a name: what was meant by a name that was looked for in the wrong place."""
    return [public_path(room, name) for room, names in ROOMS.items() if name in names]
