"""Compiles the Kotlin of export/android, and runs jobs of its core on the JVM."""

import functools
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET

import node_packages
from environments import made_once

HERE = pathlib.Path(__file__).parent
KIT = HERE.parents[2] / "export" / "android"
CORE = KIT / "core" / "src" / "main" / "kotlin"
APP = [KIT / "app" / "src" / "main" / "kotlin", KIT / "app" / "src" / "androidTest" / "kotlin"]


def versions():
    """The versions of the kit's version catalogue."""
    return dict(re.findall(r'^(\w+) = "([^"]+)"$', (KIT / "gradle" / "libs.versions.toml").read_text(encoding="utf-8"), re.MULTILINE))


@functools.cache
def _compiler():
    """The libraries of the Kotlin compiler that the kit's Gradle build uses."""
    return node_packages.node_modules(f"kotlin-compiler@{versions()['kotlin']}") / "kotlin-compiler" / "lib"


def compile_kotlin(out, *sources, options=()):
    """Compiles sources with all warnings as errors; returns (exit code, what the compiler says)."""
    command = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", f"{_compiler()}/*", "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
    command += ["-no-reflect", "-jvm-target", "11", "-Werror", "-progressive", *options, "-d", str(out), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    return done.returncode, done.stdout + done.stderr


def core():
    """The folder of the compiled core and its driver: one for each text of their sources."""
    sources = [*sorted(CORE.rglob("*.kt")), HERE / "Driver.kt"]

    def make(folder):
        code, said = compile_kotlin(folder, *sources, options=["-Xexplicit-api=strict"])
        assert code == 0, said

    return made_once("kotlin", [versions()["kotlin"], *(path.read_text(encoding="utf-8") for path in sources)], make)


def run_jobs(jobs):
    """Runs jobs of the driver in one process; returns a list of the answers, (whether it went well, text)."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump([[str(part) if isinstance(part, pathlib.Path) else part for part in job] for job in jobs], file)
        file.flush()
        classes = f"{core()}:{_compiler()}/kotlin-stdlib.jar"
        command = ["java", "-Dfile.encoding=UTF-8", "-cp", classes, "tfdistill.kit.DriverKt", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.replace("\\n", "\n").partition(" ") for line in done.stdout.splitlines()]
    assert len(lines) == len(jobs), done.stdout
    return [(word == "ok", text) for word, _, text in lines]


def runner(model):
    """The command of a process that runs a .tflite file as `Runner` of the core: see `litert_runner.py`."""
    return [sys.executable, "-I", str(HERE / "litert_runner.py"), str(model)]


def write_signatures(folder):
    """Writes what the app uses of Android, AndroidX and LiteRT as declarations, and its class `R` as Android's build makes it from the resources."""
    for part in (HERE / "signatures.txt").read_text(encoding="utf-8").split("\n== ")[1:]:
        name, _, text = part.partition("\n")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    resources = KIT / "app" / "src" / "main" / "res"
    layouts = sorted(resources.glob("layout/*.xml"))
    names = {
        "layout": [path.stem for path in layouts],
        "id": sorted(set(re.findall(r'android:id="@\+id/(\w+)"', "".join(path.read_text(encoding="utf-8") for path in layouts)))),
        "string": [each.get("name") for path in resources.glob("values/*.xml") for each in ET.parse(path).getroot().iter("string")],
    }
    parts = [
        f"public static final class {kind} {{ {' '.join(f'public static final int {name} = {at};' for at, name in enumerate(every))} }}"
        for kind, every in names.items()
    ]
    (folder / "R.java").write_text("package tfdistill.kit.app;\npublic final class R {\n" + "\n".join(parts) + "\n}\n", encoding="utf-8")
