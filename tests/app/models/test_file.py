"""The file of models: what it may say, and what is refused by which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.models.file import read_models
from app.served_model import Source, open_source
from app.settings import Settings
from model.errors import BundleError, ConfigurationError

SETTINGS = Settings(engine="onnx", precision="int8", threads=2)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def refusal(file: Path, text: str) -> str:
    """Why a file is refused, in one line that names it."""
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_models(file, SETTINGS)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{file}")
    return message.removeprefix(f"{file}")


def test_names_lead_to_folders_beside_the_file_and_the_settings_fill_in_the_rest(file: Path) -> None:
    file.write_text(
        'default = "b"\n[models.a]\nbundle = "one"\n'
        '[models.b]\nbundle = "deep/er/two"\nengine = "torchscript"\nprecision = "float32"\nthreads = 1\n'
    )
    plan = read_models(file, SETTINGS)
    assert plan.default == "b"
    assert list(plan.sources.items()) == [
        ("a", Source("a", file.parent / "one", "onnx", "int8", 2)),
        ("b", Source("b", file.parent / "deep" / "er" / "two", "torchscript", "float32", 1)),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("default = ", "is not valid TOML"),
        (f'default = "a"\n[models.a]\nbundle = "a"\nthreads = {"9" * 5000}', "is not valid TOML"),
        (f"default = {'[' * 5000}", "is not valid TOML"),
        ("", "default: Field required"),
        ('default = "a"', "models: Field required"),
        ('default = "a"\nmodels = {}', "models: Dictionary should have at least 1 item"),
        ('default = "b"\n[models.a]\nbundle = "a"', "the default 'b' is none of the models"),
        ('default = "a"\n[models.a]', "models.a.bundle: Field required"),
        ('default = "a"\n[models.a]\nbundle = ""', "models.a.bundle: String should have at least 1 character"),
        ('default = "a"\n[models.a]\nbundle = "a\\u0000b"', "models.a.bundle: String should match pattern"),
        ('default = "a"\n[models.a]\nbundle = "a"\nthreads = "2"', "models.a.threads: Input should be a valid integer"),
        ('default = "a"\n[models.a]\nbundle = "a"\nthreads = 0', "models.a.threads: Input should be greater than"),
        ('default = "a"\n[models.a]\nbundle = "a"\nport = 1', "models.a.port: Extra inputs are not permitted"),
        ('default = "a"\nextra = 1\n[models.a]\nbundle = "a"', "extra: Extra inputs are not permitted"),
        ('default = "../a"\n[models."../a"]\nbundle = "a"', "default: String should match pattern"),
        (
            'default = "a"\n[models.a]\nbundle = "a"\n[models."b/c"]\nbundle = "b"',
            "models.b/c.[key]: String should match",
        ),
        (
            'default = "a"\n[models.a]\nbundle = "a"\n[models.".."]\nbundle = "b"',
            "models....[key]: String should match",
        ),
        ('default = "a"\n[models.a]\nbundle = "a"\n[models."b\\n"]\nbundle = "b"', "String should match"),
        (f'default = "a"\n[models.a]\nbundle = "a"\n[models.{"b" * 65}]\nbundle = "b"', "String should match pattern"),
    ],
)
def test_what_is_not_as_it_should_be_is_refused(file: Path, text: str, reason: str) -> None:
    assert reason in refusal(file, text)


@pytest.mark.parametrize("bundle", ["..", "../other", "a/../../other", "/etc", "/", "way-out", "way-out/other"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, bundle: str) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "home" / "way-out").symlink_to(tmp_path)
    text = f'default = "a"\n[models.a]\nbundle = "{bundle}"'
    assert "models.a.bundle leads out of" in refusal(tmp_path / "home" / "models.toml", text)


def test_links_that_go_round_lead_to_no_bundle(file: Path) -> None:
    (file.parent / "a").symlink_to("b")
    (file.parent / "b").symlink_to("a")
    file.write_text('default = "a"\n[models.a]\nbundle = "a"')
    with pytest.raises(BundleError, match="is not a folder"):
        open_source(read_models(file, SETTINGS).sources["a"])


def test_a_link_within_the_folder_is_followed_once_and_for_good(file: Path) -> None:
    (file.parent / "v1").mkdir()
    (file.parent / "current").symlink_to("v1")
    file.write_text('default = "a"\n[models.a]\nbundle = "current"')
    assert read_models(file, SETTINGS).sources["a"].bundle == file.parent / "v1"


def test_the_file_may_itself_be_a_link_as_in_a_mounted_configuration(file: Path) -> None:
    (file.parent / "..data").mkdir()
    (file.parent / "..data" / "models.toml").write_text('default = "a"\n[models.a]\nbundle = "v1"')
    file.symlink_to("..data/models.toml")
    assert read_models(file, SETTINGS).sources["a"].bundle == file.parent / "v1"


def test_what_is_no_file_or_never_ends_is_refused(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_models(file, SETTINGS)
    with pytest.raises(ConfigurationError, match="is no plain file"):
        read_models(Path("/dev/zero"), SETTINGS)
    os.mkfifo(file)
    with pytest.raises(ConfigurationError, match="is no plain file"):
        read_models(file, SETTINGS)
    file.unlink()
    file.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigurationError, match="is larger than 1,048,576 bytes"):
        read_models(file, SETTINGS)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="is not valid TOML"):
        read_models(file, SETTINGS)


def test_more_models_than_anybody_serves_are_refused(file: Path) -> None:
    entries = "".join(f'[models.m{index}]\nbundle = "m{index}"\n' for index in range(101))
    assert "models: Dictionary should have at most 100 items" in refusal(file, f'default = "m0"\n{entries}')
