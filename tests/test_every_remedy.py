"""Every remedy that an error of the package gives is followed by a row of a table, or stands here with the reason why none can follow it."""

import ast
import functools

import pytest
import test_benchmark_remedies
import test_bits_remedies
import test_bridge_remedies
import test_browser
import test_channel_remedies
import test_compress_remedies
import test_delegates
import test_export_remedies
import test_folder_remedies
import test_four_bits
import test_kit_remedies
import test_low_rank_settings
import test_metadata_remedies
import test_micro
import test_open_layers
import test_preflight_remedies
import test_remedies
import test_remote_remedies
import test_shrink_like
import test_target_outputs
import test_teaching_remedies
from remedies_of_source import HOLE, PACKAGE, claimed, literal, pattern, remedies

from tfdistill.utils.optional import EXTRAS

TABLES = {
    "tests/test_remedies.py": [row.said for row in test_remedies.ROWS.values()],
    "tests/distill/test_teaching_remedies.py": [row.words for row in test_teaching_remedies.REMEDIES.values()],
    "tests/distill/test_folder_remedies.py": [row.words for row in test_folder_remedies.ROWS.values()],
    "tests/bridge/test_bridge_remedies.py": [row.words for row in test_bridge_remedies.ROWS.values()],
    "tests/compress/channels/test_channel_remedies.py": [row.words for row in test_channel_remedies.ROWS.values()],
    "tests/compress/low_rank/test_low_rank_settings.py": [row.words for row in test_low_rank_settings.REMEDIES.values()],
    "tests/compress/shrink/test_shrink_like.py": [row.words for row in test_shrink_like.REMEDIES.values()],
    "tests/tflite/test_metadata_remedies.py": [row.words for row in test_metadata_remedies.ROWS.values()],
    "tests/benchmarking/test_remote_remedies.py": [row.words for row in test_remote_remedies.ROWS.values()],
    "tests/tflite/test_export_remedies.py": [row.words for row in test_export_remedies.ROWS.values()],
    "tests/tflite/test_four_bits.py": [row.words for row in test_four_bits.REMEDIES.values()],
    "tests/preflight/test_preflight_remedies.py": [row.words for row in test_preflight_remedies.ROWS.values()],
    "tests/kits/test_kit_remedies.py": [row.words for row in test_kit_remedies.ROWS.values()],
    "tests/benchmarking/test_target_outputs.py": [row.words for row in test_target_outputs.ROWS.values()],
    "tests/benchmarking/test_browser.py": [row.words for row in test_browser.ROWS.values()],
    "tests/benchmarking/test_delegates.py": [row.words for row in test_delegates.ROWS.values()],
    "tests/benchmarking/test_micro.py": [row.words for row in test_micro.ROWS.values()],
    "tests/benchmarking/test_benchmark_remedies.py": [row.words for row in test_benchmark_remedies.ROWS.values()],
    "tests/compress/test_bits_remedies.py": [row.words for row in test_bits_remedies.ROWS.values()],
    "tests/compress/test_open_layers.py": [row.words for row in test_open_layers.REMEDIES.values()],
    "tests/compress/test_compress_remedies.py": [row.words for row in test_compress_remedies.ROWS.values()],
}
# Remedy -> why no row can follow it.
EXEMPT = {
    "pip install ai-edge-litert": "every environment of the tests has it, as the package depends on it",
    'pip install "tensorflow==2.21.*"': "no version of TensorFlow that the package takes lacks what it is asked for",
    f'pip install "tfdistill[{HOLE}]"': "installs packages; that the extras exist is tested below",
    f"pip install {HOLE}": "installs packages",
    "pip install ai-edge-model-explorer": "installs packages; tests/cli/test_explorer.py runs it in an environment that has it",
    "write to another file": "needs a system that does not replace a file that may be written",
    "load only files whose source you trust": "asks for no action",
    "use keras.callbacks.BackupAndRestore with a folder for each worker": "needs processes on several machines, and names what Keras has for them",
    "start a cluster yourself and give its address": "no version of Ray listens elsewhere; tests/distill/test_ray_cluster.py has one that says so",
    "check that the machine's memory suffices, or use fewer workers": "needs a machine that runs out of memory",
    "tfdistill.bridge.register_bridge(a layer's class, tfdistill.bridge.host) runs the layers of a class as they are": (
        "a guard: no layers are known that are right one by one and wrong together; rows of the bridge register classes with `host`"
    ),
}


@functools.cache
def executed():
    """Returns the remedies that rows follow -> the tables that have one."""
    texts, found = remedies(), {}
    for table, rows in TABLES.items():
        for words in rows:
            found.setdefault(claimed(words, texts), set()).add(table)
    return found


def test_every_remedy_is_followed_by_a_row():
    done = executed()
    missing = {text: places for text, places in remedies().items() if text not in done and text not in EXEMPT}
    shown = [f"{', '.join(places)}: {text.replace(HOLE, '{}')}" for text, places in missing.items()]
    assert not shown, "Remedies without a row that provokes the error and does what it says:\n" + "\n".join(shown)


def test_what_is_exempt_is_there_and_has_no_row():
    assert set(EXEMPT) <= set(remedies())
    assert not set(EXEMPT) & set(executed())


def test_the_extras_that_are_named_exist():
    tree = ast.parse((PACKAGE.parent / "setup.py").read_text(encoding="utf-8"))
    declared = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "EXTRAS")
    assert set(EXTRAS.values()) <= set(declared)


CLAIMS = {
    "export_tflite writes one": "export_tflite writes one",
    "allow_flex=True": None,  # several have it
    "say which call is meant: 'a@0' to 'a@1'": f"say which call is meant: '{HOLE}@0' to '{HOLE}@{HOLE}'",
    "choose another folder": "choose another folder",  # others begin so
    "nobody says this": None,
}


@pytest.mark.parametrize("words", CLAIMS)
def test_words_are_taken_for_the_remedy_that_they_are_of(words):
    assert claimed(words, remedies()) == CLAIMS[words]


def test_remedies_are_found_wherever_they_stand():
    """In a constant, a condition, an f-string, a parameter that is passed on, and what a function returns."""
    found = remedies()
    assert len(found) > 240
    for text in ("use it as it is", "delete the folder and label again", "set heads='mean'", "lower the learning rate or clip gradients"):
        assert any(pattern(text).search(remedy) for remedy in found), text
    assert all(literal(text) for text in found)
