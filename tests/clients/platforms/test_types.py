"""Typed programs compile with the types of the JavaScript client, and mistakes in them do not."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.platforms.components import write_examples
from tests.support.npm import install_packages
from tests.support.servers import ROOT

pytestmark = pytest.mark.timeout(250)  # the first test of a machine downloads the packages

TYPES = Path(__file__).parent / "types"
PACKAGES = {"typescript": "7.0.2", "@types/react": "19.2.0"}
OPTIONS = {
    "strict": True,
    "noUncheckedIndexedAccess": True,
    "noEmit": True,
    "target": "es2022",
    "lib": ["es2022", "dom", "dom.iterable"],
    "jsx": "react-jsx",
    "types": [],
}
RESOLUTIONS = {"nodenext": "nodenext", "bundler": "esnext"}


def compile_programs(folder, *files, **options):
    """Return what the TypeScript compiler reports about these files."""
    installed = install_packages(PACKAGES, required_by="REQUIRE_SERVERS")
    modules = folder / "node_modules"
    if not modules.exists():
        modules.mkdir()
        for package in installed.iterdir():
            (modules / package.name).symlink_to(package)
        (modules / "django-cocobase-realtime").symlink_to(ROOT)
    (folder / "package.json").write_text('{"type": "module"}')
    config = {"compilerOptions": {**OPTIONS, **options}, "files": [str(file) for file in files]}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    compiler = installed / "typescript" / "bin" / "tsc"
    command = ["node", str(compiler), "--project", str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_programs_compile_and_their_marked_mistakes_do_not(tmp_path, resolution):
    names = sorted(file.name for file in TYPES.glob("*.ts"))
    for name in names:
        (tmp_path / name).write_text((TYPES / name).read_text())
    module = RESOLUTIONS[resolution]
    assert compile_programs(tmp_path, *names, module=module, moduleResolution=resolution) == ""


def test_documented_components_compile(tmp_path):
    write_examples("react", tmp_path)
    options = {"module": "esnext", "moduleResolution": "bundler", "allowJs": True, "checkJs": True}
    files = ["db.js", "posts.jsx", "members.jsx"]
    report = compile_programs(tmp_path, *files, **options, noImplicitAny=False)
    assert report == ""
