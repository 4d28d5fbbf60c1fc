#!/bin/sh
# Makes a virtual environment beside this file with NumPy, Pillow and the TFLite runtime that this board can have, and runs the self-test.
#
#   sh install.sh              .venv/bin/python classify.py picture.png
#   sh install.sh --service    serve.py as a systemd service of this user, started with the board (asks for sudo)
#
# PYTHON names another interpreter than python3.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}

fail() {
  echo "install.sh: $1" >&2
  exit 1
}

command -v "$python" >/dev/null || fail "there is no $python: sudo apt install python3 python3-venv"
version=$("$python" -c 'import sys; print("%d%02d" % sys.version_info[:2])')
bits=$("$python" -c 'import sys; print(64 if sys.maxsize > 2**32 else 32)')
machine=$(uname -m)

if [ "$bits" = 64 ] && [ "$version" -ge 310 ]; then
  packages="ai-edge-litert numpy"
elif [ "$machine" != armv6l ] && [ "$version" -ge 308 ] && [ "$version" -le 311 ]; then
  # The last release of the old runtime, which does not work with NumPy 2.
  packages="tflite-runtime==2.14.0 numpy<2"
else
  fail "no TFLite runtime is built for Python $version with $bits bits on $machine. Use the 64-bit Raspberry Pi OS, or a Python of 3.8 to 3.11: PYTHON=python3.11 sh install.sh"
fi

if [ ! -x .venv/bin/python ]; then
  # Packages of the system are seen, for Picamera2, which only apt installs.
  "$python" -m venv --system-site-packages .venv || fail "no virtual environment can be made: sudo apt install python3-venv"
fi
# shellcheck disable=SC2086
.venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade $packages || fail "pip could not install $packages: see above"
.venv/bin/python -m pip install --quiet --disable-pip-version-check pillow || echo "install.sh: without Pillow only PNG and PPM pictures are read" >&2
.venv/bin/python selftest.py

if [ "${1:-}" = --service ]; then
  sed -e "s|@FOLDER@|$(pwd)|g" -e "s|@USER@|$(id -un)|g" classifier.service | sudo tee /etc/systemd/system/tfdistill-classifier.service >/dev/null
  sudo systemctl daemon-reload
  sudo systemctl enable --now tfdistill-classifier.service
  echo "The service runs: systemctl status tfdistill-classifier"
fi
