"""The only door to tf_keras and tensorflow-model-optimization: models go there, are adopted from there, and come back."""

from tfdistill.legacy.adopt import AdoptedModel, adopt
from tfdistill.legacy.back import to_keras
from tfdistill.legacy.convert import to_tf_keras
from tfdistill.legacy.hosted import host
from tfdistill.legacy.layers import register_bridge
from tfdistill.legacy.parity import ParityRecord, check_parity

__all__ = ["AdoptedModel", "ParityRecord", "adopt", "check_parity", "host", "register_bridge", "to_keras", "to_tf_keras"]
