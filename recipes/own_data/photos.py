"""Fetch the photographs of this recipe: nine real ones that scikit-image and scikit-learn carry inside their packages.

    python recipes/own_data/photos.py                      # installed packages, or pip download into a temporary folder
    python recipes/own_data/photos.py --wheels some/folder # wheel files that are already there (no network)

No package is installed or imported: a wheel is a zip file, and only the pictures are read from it. They are shrunk to
at most 448 pixels a side (Qwen2.5-VL: 256 image tokens at most) and written to ``pictures/`` beside this script.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from steer_verl.errors import DataError
from steer_verl.images import load_image

HERE = Path(__file__).resolve().parent
MAX_SIDE = 448
REQUIREMENTS = {"skimage": "scikit-image>=0.22,<0.27", "sklearn": "scikit-learn>=1.3,<2"}
PHOTOS = {
    "cat": "skimage/data/chelsea.png",
    "coffee": "skimage/data/coffee.png",
    "coins": "skimage/data/coins.png",
    "flower": "sklearn/datasets/images/flower.jpg",
    "motorcycle": "skimage/data/motorcycle_left.png",
    "pavilion": "sklearn/datasets/images/china.jpg",
    "photographer": "skimage/data/camera.png",
    "retina": "skimage/data/retina.jpg",
    "rocket": "skimage/data/rocket.jpg",
}


def from_package(member: str) -> bytes | None:
    """The picture out of an installed package, found without importing it."""
    package, _, rest = member.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], rest)
    return path.read_bytes() if path.is_file() else None


def from_wheels(member: str, folder: Path) -> bytes | None:
    """The picture out of the first wheel of a folder that holds it."""
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            if member in archive.namelist():
                return archive.read(member)
    return None


def download(packages: set[str], folder: Path) -> None:
    """The wheels of the packages, without installing them or anything that they need (23 MB)."""
    wanted = [REQUIREMENTS[package] for package in sorted(packages)]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--no-deps", "--only-binary=:all:", "--dest", str(folder), *wanted]
    print("downloading " + " and ".join(wanted), flush=True)
    if subprocess.run(command, check=False).returncode:
        raise DataError("pip could not download them; install scikit-image and scikit-learn, or give --wheels FOLDER")


def write(data: bytes, target: Path) -> None:
    """Through the guarded door, shrunk, as JPEG."""
    with tempfile.NamedTemporaryFile() as original:
        original.write(data)
        original.flush()
        image = load_image(original.name)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, "JPEG", quality=92)


def fetch(out: Path, wheels: Path | None) -> None:
    """Write every photograph to ``out``.

    Raises:
        DataError: a photograph is nowhere to be had.
    """
    find = from_package if wheels is None else lambda member: from_wheels(member, wheels)
    found = {name: find(member) for name, member in PHOTOS.items()}
    missing = {name for name, data in found.items() if data is None}
    if missing and wheels is None:
        with tempfile.TemporaryDirectory() as folder:
            download({PHOTOS[name].split("/")[0] for name in missing}, Path(folder))
            found |= {name: from_wheels(PHOTOS[name], Path(folder)) for name in missing}
    for name, data in found.items():
        if data is None:
            raise DataError(
                f"{PHOTOS[name]}: in no package at hand; fetch wheels of {', '.join(REQUIREMENTS.values())}"
            )
        write(data, out / f"{name}.jpg")


def main() -> int:
    """Exit status 1, with one line, when a photograph is missing."""
    parser = argparse.ArgumentParser(description="Fetch the photographs of recipes/own_data.")
    parser.add_argument("--out", type=Path, default=HERE / "pictures", help="folder to write (default: %(default)s)")
    parser.add_argument("--wheels", type=Path, help="folder with wheels of scikit-image and scikit-learn")
    options = parser.parse_args()
    try:
        fetch(options.out, options.wheels)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(PHOTOS)} photographs in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
