"""`--target` as text: every target of the library, and settings of every type."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import pytest

from tfdistill.benchmarking import Cpu
from tfdistill.benchmarking.targets.base import KINDS
from tfdistill.cli import target_text
from tfdistill.cli.target_text import described, parse_target
from tfdistill.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class Board:
    """A target with settings of every type."""

    kind: ClassVar[str] = "board"
    host: str
    port: int = 22
    patience: float | None = None
    fast: bool = False
    mode: Literal["a", "b"] = "a"
    cores: tuple[int, ...] = ()
    options: Mapping[str, str] | None = None


@pytest.fixture
def board(monkeypatch):
    monkeypatch.setitem(KINDS, "board", Board)


TEXTS = {
    "cpu": Cpu(),
    "cpu:": Cpu(),
    "cpu:threads=2": Cpu(threads=2),
    "cpu:engine=tensorflow,threads=3": Cpu(threads=3, engine="tensorflow"),
    "board://pi@host": Board("pi@host"),
    "board://pi@host:2222?port=5,mode=b": Board("pi@host:2222", 5, mode="b"),
    "board:host=x,patience=1.5,fast=true,cores=0+3": Board("x", patience=1.5, fast=True, cores=(0, 3)),
    r"board:host=a\,b,options.level=2,options.path=/x=y": Board("a,b", options={"level": "2", "path": "/x=y"}),
}


@pytest.mark.parametrize("text", TEXTS)
def test_texts(text, board):
    assert parse_target(text) == TEXTS[text]


MISTAKES = {
    "gqu": "There is no target 'gqu'",
    "": "There is no target ''",
    "cpu:thread=2": "Nearest: 'threads'",
    "cpu:threads": "'threads' is no setting",
    "cpu:threads=two": "a whole number",
    "cpu:threads=0": "threads=0",
    "board:host=x,fast=perhaps": "true or false",
    "board": "lacks host",
    "board:host=x,patience=long": "a number",
    "board:host=x,cores=0+b": "cores=0+b",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes(text, board):
    with pytest.raises(ConfigurationError) as caught:
        parse_target(text)
    assert MISTAKES[text] in str(caught.value)


def test_every_target_is_described(board):
    lines = described()
    assert [line.split(":")[0] for line in lines] == list(KINDS)
    assert any(line.startswith("board:host,port=22") for line in lines)
    assert target_text.KINDS is KINDS
