"""Takes pictures with the camera of the board: with Picamera2 if it is installed, else with OpenCV."""

from errors import KitError


def frames(number=0, size=(640, 480)):
    """Yields pictures until the caller stops.

    Args:
        number: Number of the camera.
        size: (width, height).

    Yields:
        uint8 array (height, width, 3), in the order red, green, blue.

    Raises:
        KitError: if there is no camera, or no program to read it.
    """
    said = []
    for name, read in (("picamera2", _picamera2), ("cv2", _opencv)):
        try:
            module = __import__(name)
        except Exception as error:  # packages built for another system fail in many ways
            said.append(f"{name}: {error}")
            continue
        yield from read(module, number, size)
        return
    raise KitError(
        f"No program to read a camera is installed ({'; '.join(said)}).",
        "sudo apt install python3-picamera2 for a camera on the board's connector (a virtual environment sees it if it is made with --system-site-packages); "
        "or .venv/bin/python -m pip install opencv-python-headless for one on USB",
    )


def _picamera2(module, number, size):
    try:
        camera = module.Picamera2(number)
        # What libcamera calls BGR888 has red first in memory.
        camera.configure(camera.create_video_configuration({"size": size, "format": "BGR888"}))
        camera.start()
    except (IndexError, RuntimeError, OSError) as error:
        raise KitError(
            f"Picamera2 opens no camera {number}: {error}.", "check its cable, and that rpicam-hello --list-cameras shows it"
        ) from error
    try:
        while True:
            yield camera.capture_array()[..., :3]
    finally:
        camera.stop()
        camera.close()


def _opencv(module, number, size):
    camera = module.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise KitError(
                f"OpenCV opens no camera {number}.",
                "check that it is connected: ls /dev/video*; another one is chosen with --camera-number",
            )
        camera.set(module.CAP_PROP_FRAME_WIDTH, size[0])
        camera.set(module.CAP_PROP_FRAME_HEIGHT, size[1])
        while True:
            taken, picture = camera.read()
            if not taken:
                raise KitError("The camera gives no more pictures.", "check that it is still connected, and that no other program uses it")
            yield picture[..., ::-1]  # OpenCV has blue first
    finally:
        camera.release()
