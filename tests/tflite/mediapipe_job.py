"""Reads .tflite files with MediaPipe Tasks, in an environment that has it.

Prints as JSON, by file: the name of the first class of every image, and what MediaPipe's own classes of the format find.
"""

import json
import pathlib
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata
from mediapipe.tasks.metadata import schema_py_generated as schema
from mediapipe.tasks.python import vision
from mediapipe.tasks.python.core.base_options import BaseOptions


def written(content):
    """What the tables say."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (entry,) = (entry for entry in model.metadata if entry.name == b"TFLITE_METADATA")
    tables = bytes(model.buffers[entry.buffer].data)
    assert metadata.ModelMetadata.ModelMetadataBufferHasIdentifier(tables, 0)
    found = metadata.ModelMetadataT.InitFromObj(metadata.ModelMetadata.GetRootAs(tables, 0))
    (graph,) = found.subgraphMetadata
    (image,), (output,) = graph.inputTensorMetadata, graph.outputTensorMetadata
    (unit,), (file,) = image.processUnits, output.associatedFiles
    texts = [found.name, found.author, found.license, found.minParserVersion, image.name, output.name, file.name]
    kinds = [image.content.contentPropertiesType, image.content.contentProperties.colorSpace, unit.optionsType, file.type]
    return [*(text.decode() for text in texts), *map(int, kinds), *map(float, [*unit.options.mean, *unit.options.std])]


images = np.load(sys.argv[1])
found = {}
for path in sys.argv[2:]:
    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=path), max_results=1)
    with vision.ImageClassifier.create_from_options(options) as classifier:
        results = [classifier.classify(mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(image))) for image in images]
    names = [result.classifications[0].categories[0].category_name for result in results]
    found[path] = {"names": names, "written": written(pathlib.Path(path).read_bytes())}
print(json.dumps(found))
