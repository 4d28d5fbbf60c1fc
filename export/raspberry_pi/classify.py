"""Classifies pictures, or what the camera of the board sees.

python3 classify.py picture.png another.jpg
python3 classify.py --camera
"""

import argparse
import json
import pathlib
import sys

import errors
from errors import KitError


def main():
    """Classifies what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", help="files of pictures; - reads one from standard input")
    parser.add_argument("--camera", action="store_true", help="classify what the camera sees until Ctrl-C")
    parser.add_argument("--camera-number", type=int, default=0, metavar="N", help="another camera than the first")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="end after N pictures of the camera")
    parser.add_argument("--model", help="the .tflite file (default: model.tflite beside this program)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--top", type=int, default=5, help="number of classes to show (default: 5)")
    parser.add_argument(
        "--crop", action="store_true", default=None, help="cut pictures to the shape of the input in place of stretching them"
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each picture")
    given = parser.parse_args()
    if bool(given.pictures) == given.camera:
        parser.error("give files of pictures, or --camera")
    errors.require_numpy()
    import pictures
    from classifier import Classifier

    classifier = Classifier(given.model, given.threads, crop=given.crop)
    failed = False
    for name, picture in _camera(given) if given.camera else _files(given.pictures):
        try:
            found = classifier.classify(pictures.read(picture) if isinstance(picture, bytes) else picture, given.top)
        except KitError as error:
            if given.camera or len(given.pictures) == 1:
                raise
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        print(json.dumps({"picture": name, **found}) if given.json else _shown(name, found), flush=True)
    return int(failed)


def _files(paths):
    for path in paths:
        try:
            yield path, sys.stdin.buffer.read() if path == "-" else pathlib.Path(path).read_bytes()
        except OSError as error:
            raise KitError(f"'{path}' cannot be read: {error.strerror or error}.", "give the path of a picture") from error


def _camera(given):
    import camera

    for number, picture in enumerate(camera.frames(given.camera_number), 1):
        yield f"picture {number}", picture
        if number == given.frames:
            return


def _shown(name, found):
    width = max(len(each["label"]) for each in found["classes"])
    lines = [f"{name}: {found['inference_ms']:.2f} ms"]
    lines += [f"  {each['label']:{width}}  {each['score']:7.2%}  {'#' * round(30 * each['score'])}" for each in found["classes"]]
    return "\n".join(lines)


if __name__ == "__main__":
    errors.run(main)
