"""`tfdistill inspect --explorer`: Model Explorer, installed in an environment of its own, shows the file in the colors of a target."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import urllib.parse
import urllib.request

import environments
import keras
import pytest

import tfdistill
from tfdistill.cli import explorer
from tfdistill.errors import MissingPackageError
from tfdistill.report.explorer import explorer_data

EXPLORER = "ai-edge-model-explorer==0.1.34"


def asked(address, route, **query):
    with urllib.request.urlopen(f"{address}{route}?{urllib.parse.urlencode(query)}", timeout=60) as answer:
        return json.load(answer)


def named_outputs(graph):
    """Names of the tensors that the nodes of a graph of Model Explorer write."""
    attributes = [attribute for node in graph["nodes"] for output in node.get("outputsMetadata", []) for attribute in output["attrs"]]
    return {each["value"] for each in attributes if each["key"] == "tensor_name"}


# Where tests run in the background of a shell, Ctrl-C is ignored, which processes inherit.
PROGRAM = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("tfdistill", run_name="__main__")
"""


@pytest.mark.slow
def test_the_file_is_shown_with_colors(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="gelu"), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    path = tmp_path / "a, b.tflite"  # a comma, at which Model Explorer would end a path
    tfdistill.export_tflite(model, path, "dynamic_range")
    bin_folder = pathlib.Path(environments.python_with(EXPLORER)).parent
    env = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "BROWSER": "true", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", PROGRAM, "inspect", path, "--explorer", "--target", "micro"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True) as process:
        try:
            lines = iter(process.stdout.readline, "")
            shown = next(line for line in lines if line.startswith("http://127.0.0.1:"))
            address, _, data = shown.strip().partition("/?data=")
            opened = json.loads(urllib.parse.unquote(data))
            (source,), (node_data,) = opened["models"], opened["nodeData"]
            colors = json.loads(asked(address, "/api/v1/read_text_file", path=node_data)["content"])
            sent = {
                "cmdId": "convert",
                "extensionId": "builtin_tflite_flatbuffer",
                "modelPath": source["url"],
                "settings": {"const_element_count_limit": 4},
                "deleteAfterConversion": False,
            }
            found = asked(address, "/api/v1/send_command", json=json.dumps(sent))
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)
    assert not pathlib.Path(source["url"]).exists()
    assert colors == explorer_data(tfdistill.inspect(path), "micro")
    graph = found["graphCollections"][0]["graphs"][0]
    assert graph["id"] == "main"
    assert set(colors["main"]["results"]) <= named_outputs(graph)


def test_without_it_the_package_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(MissingPackageError, match="pip install ai-edge-model-explorer"):
        explorer.explorer_program()
