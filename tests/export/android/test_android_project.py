"""The Android kit's project: what can be known of it without Android's SDK."""

import re
import xml.etree.ElementTree as ET

import kotlin_kit
import pytest
from kotlin_kit import APP, CORE, KIT

from tfdistill.kits.devices import android

ANDROID = "{http://schemas.android.com/apk/res/android}"
TOOLS = "{http://schemas.android.com/tools}"
MAIN = KIT / "app" / "src" / "main"
XML = sorted(KIT.rglob("*.xml"))
GRADLE = sorted(KIT.rglob("*.kts"))


def texts(*paths):
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def test_the_manifest_asks_for_the_camera_alone():
    manifest = ET.parse(MAIN / "AndroidManifest.xml").getroot()
    asked = {each.get(f"{ANDROID}name").rpartition(".")[2]: each.get(f"{TOOLS}node") for each in manifest.iter("uses-permission")}
    # What libraries ask for is taken out again: LiteRT's for downloads in the background, and the network.
    assert asked == {"CAMERA": None, "INTERNET": "remove", "FOREGROUND_SERVICE": "remove", "FOREGROUND_SERVICE_DATA_SYNC": "remove"}
    (application,) = manifest.iter("application")
    assert application.get(f"{ANDROID}allowBackup") == "false"
    (activity,) = application.iter("activity")
    assert activity.get(f"{ANDROID}name") == ".MainActivity"
    assert (MAIN / "kotlin" / "tfdistill" / "kit" / "app" / "MainActivity.kt").is_file()
    (feature,) = manifest.iter("uses-feature")
    assert feature.get(f"{ANDROID}required") == "false"


def test_every_resource_is_there_and_used():
    resources = MAIN / "res"
    defined = {(each.tag, each.get("name")) for path in resources.glob("values/*.xml") for each in ET.parse(path).getroot()}
    defined |= {("layout", path.stem) for path in resources.glob("layout/*.xml")}
    defined |= {("id", name) for name in re.findall(r'id="@\+id/(\w+)"', texts(*resources.glob("layout/*.xml")))}
    code = texts(*(path for folder in APP for path in folder.rglob("*.kt")))
    used = set(re.findall(r"\bR\.(\w+)\.(\w+)", code)) | set(re.findall(r'"@(string|style)/([\w.]+)"', texts(*XML)))
    assert used == defined


def test_texts_are_given_what_they_show():
    """Each placeholder of a string has an argument where the code shows it."""
    strings = {each.get("name"): each.text for each in ET.parse(MAIN / "res" / "values" / "strings.xml").getroot()}
    code = texts(*(path for folder in APP for path in folder.rglob("*.kt")))
    for name, text in strings.items():
        places = {int(place) for place in re.findall(r"%(\d)\$", text)}
        assert places == set(range(1, len(places) + 1)), name
        for arguments in re.findall(rf"getString\(R\.string\.{name}((?:, [\w.!]+)*)\)", code):
            assert arguments.count(",") == len(places), name


def test_versions_are_those_that_are_tested():
    versions, catalogue = kotlin_kit.versions(), texts(KIT / "gradle" / "libs.versions.toml")
    pinned = (KIT.parents[1] / "requirements.txt").read_text(encoding="utf-8")
    assert f"ai-edge-litert=={versions['litert']}\n" in pinned
    used = {name.replace("-", ".") for name in re.findall(r"^([\w-]+) = \{ (?:module|id)", catalogue, re.MULTILINE)}
    named = set(re.findall(r"libs\.(?:plugins\.)?([\w.]+)", texts(*GRADLE)))
    assert named == used
    assert set(re.findall(r'version\.ref = "(\w+)"', catalogue)) == set(versions)
    # LiteRT 2.3.0 needs 24; its GPU accelerator is an artifact of its own since then.
    build = texts(KIT / "app" / "build.gradle.kts")
    assert "minSdk = 24" in build
    assert "libs.litert.gpu" in build


def test_the_core_has_no_android():
    imports = set(re.findall(r"^import ([\w.]+)", texts(*CORE.rglob("*.kt")), re.MULTILINE))
    assert {name.split(".")[0] for name in imports} == {"java", "kotlin"}


def test_the_wrapper_fetches_a_gradle_over_https():
    properties = texts(KIT / "gradle" / "wrapper" / "gradle-wrapper.properties")
    assert re.search(r"^distributionUrl=https\\://services\.gradle\.org/distributions/gradle-[\d.]+-bin\.zip$", properties, re.MULTILINE)


@pytest.mark.slow
def test_the_app_compiles_against_the_declarations_of_what_it_uses(tmp_path):
    kotlin_kit.write_signatures(tmp_path / "signatures")
    declared = tmp_path / "signatures"
    code, said = kotlin_kit.compile_kotlin(tmp_path / "app", *APP, declared, options=["-cp", str(kotlin_kit.core())])
    assert code == 0, said
    # A mistake is found, so the compiler does read what is declared.
    wrong = tmp_path / "Wrong.kt"
    wrong.write_text("package tfdistill.kit.app\nfun wrong(screen: MainActivity): Int = screen.assets\n", encoding="utf-8")
    code, said = kotlin_kit.compile_kotlin(tmp_path / "wrong", wrong, declared, options=["-cp", str(tmp_path / "app")])
    assert code != 0
    assert "Wrong.kt:2:" in said


@pytest.mark.slow
def test_build_files_have_no_syntax_errors(tmp_path):
    """Without Gradle's classes their names are unknown, but a text that is no Kotlin is another error."""
    broken = tmp_path / "broken.kts"
    broken.write_text("plugins {\n    alias(libs.plugins\n}\n", encoding="utf-8")
    found = {}
    for number, path in enumerate([*GRADLE, broken]):
        # As the body of a function: Gradle's build files are scripts.
        lines = path.read_text(encoding="utf-8").splitlines()
        imports = [line for line in lines if line.startswith("import ")]
        body = [line for line in lines if line not in imports]
        (tmp_path / f"Script{number}.kt").write_text(
            "\n".join([f"package script{number}", *imports, "fun script() {", *body, "}"]), encoding="utf-8"
        )
    _, said = kotlin_kit.compile_kotlin(tmp_path / "out", *tmp_path.glob("*.kt"))
    found = {
        int(number)
        for number, text in re.findall(r"Script(\d+)\.kt:\d+:\d+: error: (.*)", said)
        if "syntax error" in text.lower() or "expecting" in text.lower()
    }
    assert found == {len(GRADLE)}, said


class Description(dict):
    """What `kit` hands to a device's module."""

    def __init__(self, inputs, outputs, free=(), name=""):
        super().__init__(inputs=inputs, outputs=outputs, metadata={"name": name} if name else {})
        self.layout = {"inputs": [{"tensor": tensor["name"], "free_axes": list(free)} for tensor in inputs]}


def tensor(name, dtype, scale=None):
    return {"name": name, "dtype": dtype, "scale": scale}


PLAIN = [tensor("x", "uint8", 0.5)]


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (Description(PLAIN, [tensor("y", "float32")]), []),
        (Description([tensor("x", "int16", 0.1)], [tensor("y", "int16", 0.1)]), [("'x' int16, 'y' int16", "export it with io='float32'")]),
        (Description([tensor("x", "float16")], PLAIN), [("'x' float16", "")]),
        (Description(PLAIN, PLAIN, free=[0]), [("that of 'x' is not fixed", "export it with batch_size=1")]),
    ],
)
def test_what_the_api_does_not_take_is_refused(description, expected):
    found = android.refusals(description, None)
    assert len(found) == len(expected)
    for (happened, fix), (part, remedy) in zip(found, expected, strict=True):
        assert part in happened
        assert fix.startswith(remedy)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Ten things", "Ten things"),
        ("", "tfdistill kit"),
        ("\n", "tfdistill kit"),
        ('Ada\'s "cats" & <dogs>', 'Ada\\\'s \\"cats\\" & <dogs>'),
        ("@string/x", "\\@string/x"),
        ("?attr\n2", "\\?attr 2"),
        ("back\\slash", "back\\\\slash"),
    ],
)
def test_the_app_has_the_name_of_the_model(name, shown):
    ((path, content),) = android.made_files(Description(PLAIN, PLAIN, name=name)).items()
    assert (KIT / path).is_file()
    (string,) = ET.fromstring(content)
    assert (string.get("name"), string.text) == ("app_name", shown)
