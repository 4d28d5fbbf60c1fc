"""Models between Keras 3 and tf_keras, the Keras of tensorflow-model-optimization: rebuilt there, adopted from there, and rebuilt in Keras 3."""

# Not imported lazily, as in other packages: the package `adopt` would hide the function of that name.
from tfdistill.bridge.adopt.adopt import AdoptedModel, adopt
from tfdistill.bridge.convert.hosted import host
from tfdistill.bridge.convert.layers import register_bridge
from tfdistill.bridge.convert.to_keras import to_keras
from tfdistill.bridge.convert.to_tf_keras import to_tf_keras
from tfdistill.bridge.load import load_model
from tfdistill.bridge.parity.check import ParityRecord, check_parity

__all__ = ["AdoptedModel", "ParityRecord", "adopt", "check_parity", "host", "load_model", "register_bridge", "to_keras", "to_tf_keras"]
