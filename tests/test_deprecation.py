"""Public names that have changed: the old one works, warns once, and says the new one; what was saved does not mind."""

import importlib
import inspect
import warnings

import keras
import pytest

import tfdistill
from tfdistill import losses, public
from tfdistill.errors import ConfigurationError
from tfdistill.utils import deprecation

TABLE = {
    "tfdistill.learn": ("tfdistill.Distiller", "0.2"),
    "tfdistill.SoftTargets": ("tfdistill.losses.SoftTargets", "0.3"),
    "tfdistill.losses.Hinton": ("tfdistill.losses.SoftTargets", "0.2"),
    "tfdistill.compress.Prune20": ("tfdistill.compress.Prune", "0.2"),
    "tfdistill.benchmarking.benchmark_file": ("tfdistill.benchmark", "0.2"),
}


@pytest.fixture(autouse=True)
def _none_has_warned(monkeypatch):
    monkeypatch.setattr(deprecation, "_warned", set())


@pytest.fixture
def renamed(monkeypatch):
    """The table of names that have changed has entries; afterwards no package remembers them."""
    for path, entry in TABLE.items():
        monkeypatch.setitem(public.DEPRECATED, path, entry)
    yield
    for path in TABLE:
        package, _, name = path.rpartition(".")
        vars(importlib.import_module(package)).pop(name, None)


def caught(function):
    """Returns what a function returns and the warnings of its call."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        return function(), found


@pytest.mark.parametrize("path", TABLE)
def test_an_old_name_works_and_warns_once(path, renamed):
    (package, _, name), (new, since) = path.rpartition("."), TABLE[path]
    home, _, attribute = new.rpartition(".")
    value, found = caught(lambda: getattr(importlib.import_module(package), name))
    assert value is getattr(importlib.import_module(home), attribute)
    assert [(w.category, str(w.message)) for w in found] == [
        (FutureWarning, f"`{path}` is now `{new}` (since tfdistill {since}). The old name will be removed.")
    ]
    assert found[0].filename == __file__
    assert caught(lambda: getattr(importlib.import_module(package), name)) == (value, [])


def test_a_from_import_of_an_old_name_warns_at_its_line(renamed):
    def old():
        from tfdistill.losses import Hinton

        return Hinton

    value, found = caught(old)
    assert value is losses.SoftTargets
    assert [w.filename for w in found] == [__file__]


def test_old_names_are_listed_nowhere(renamed):
    assert not {"learn", "SoftTargets"} & set(dir(tfdistill))
    assert "Hinton" not in dir(losses)
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = losses.Nonsense


def test_a_model_saved_under_a_class_whose_public_name_changes_loads_without_a_warning(renamed):
    made, _ = caught(lambda: losses.Hinton(4.0))
    config = keras.saving.serialize_keras_object(made)
    assert config["registered_name"] == "tfdistill>SoftTargets"
    loaded, found = caught(lambda: keras.saving.deserialize_keras_object(config))
    assert (repr(loaded), found) == (repr(made), [])


def test_every_name_that_has_changed_leads_to_a_public_name():
    paths = {public.public_path(room, name) for room, names in public.ROOMS.items() for name in names}
    assert {new for new, _ in public.DEPRECATED.values()} <= paths
    assert not set(public.DEPRECATED) & paths


@deprecation.renamed_arguments("0.2", say="log_fn", pids="on_worker_start")
def work(data, log_fn=None, on_worker_start=None):
    """Works."""
    return data, log_fn, on_worker_start


class Worker:
    @deprecation.renamed_arguments("0.3", say="log_fn")
    def __init__(self, log_fn=None):
        self.log_fn = log_fn

    @deprecation.renamed_arguments("0.3", many="count")
    def run(self, count=1):
        return count


ARGUMENTS = {
    "new names": (lambda: work(1, log_fn=2, on_worker_start=3), (1, 2, 3), []),
    "positions": (lambda: work(1, 2, 3), (1, 2, 3), []),
    "an old name": (lambda: work(1, say=2), (1, 2, None), ["`work(say=...)` is now `work(log_fn=...)` (since tfdistill 0.2)"]),
    "two old names": (
        lambda: work(data=1, pids=3, say=2),
        (1, 2, 3),
        ["`work(say=...)` is now `work(log_fn=...)`", "`work(pids=...)` is now `work(on_worker_start=...)`"],
    ),
    "twice": (lambda: [work(1, say=2), work(1, say=3)], [(1, 2, None), (1, 3, None)], ["`work(say=...)`"]),
    "a constructor": (lambda: Worker(say=2).log_fn, 2, ["`Worker(say=...)` is now `Worker(log_fn=...)` (since tfdistill 0.3)"]),
    "a method": (lambda: Worker().run(many=2), 2, ["`Worker.run(many=...)` is now `Worker.run(count=...)`"]),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_old_keyword_arguments_work_and_warn_once(case):
    call, expected, said = ARGUMENTS[case]
    value, found = caught(call)
    assert value == expected
    assert [w.category for w in found] == [FutureWarning] * len(said)
    assert all(str(w.message).startswith(words) for w, words in zip(found, said, strict=True))
    assert {w.filename for w in found} <= {__file__}


def test_both_names_of_one_argument_are_refused():
    with pytest.raises(ConfigurationError, match="both `say` and `log_fn`"):
        work(1, say=2, log_fn=3)
    with pytest.raises(TypeError, match="multiple values"), pytest.warns(FutureWarning):
        work(1, 2, say=3)


def test_editors_see_the_new_names_alone():
    assert list(inspect.signature(work).parameters) == ["data", "log_fn", "on_worker_start"]
    assert (work.__name__, work.__doc__) == ("work", "Works.")
