"""The only door to tf_keras and tensorflow-model-optimization: models go there, are adopted from there, and come back."""

# Not lazily, as the other rooms: the package `adopt` would stand in the place of the function.
from tfdistill.bridge.adopt.adopt import AdoptedModel, adopt
from tfdistill.bridge.convert.hosted import host
from tfdistill.bridge.convert.layers import register_bridge
from tfdistill.bridge.convert.to_keras import to_keras
from tfdistill.bridge.convert.to_tf_keras import to_tf_keras
from tfdistill.bridge.parity.check import ParityRecord, check_parity

__all__ = ["AdoptedModel", "ParityRecord", "adopt", "check_parity", "host", "register_bridge", "to_keras", "to_tf_keras"]
