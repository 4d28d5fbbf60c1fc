"""Reads .tflite files with MediaPipe Tasks, in an environment that has it: prints the name of the first class of every image, by file, as JSON."""

import json
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.python import vision
from mediapipe.tasks.python.core.base_options import BaseOptions

images = np.load(sys.argv[1])
found = {}
for path in sys.argv[2:]:
    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=path), max_results=1)
    with vision.ImageClassifier.create_from_options(options) as classifier:
        results = [classifier.classify(mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(image))) for image in images]
    found[path] = [result.classifications[0].categories[0].category_name for result in results]
print(json.dumps(found))
