"""Fetches ONNX Runtime's shared library out of its PyPI wheel: `python3 pipelines/runtime/fetch.py cpu` (or `cuda`).

The wheels are the ones whose digests stand in `<kind>.txt` beside this script; pip checks them. The libraries are laid
flat into `.runtime/<kind>/` under the project's folder. The folder appears whole or not at all, and a second call does
nothing as long as `<kind>.txt` stays as it is. Needs a python3 with pip, of any version: nothing is installed into it.
"""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
RUNTIME = HERE.parent.parent / ".runtime"
# Any will do, since the C library does not depend on Python; the requirement files hold the digests of this one.
WHEEL_PYTHON = "3.12"


def main() -> int:
    kinds = sorted(path.stem for path in HERE.glob("*.txt"))
    if len(sys.argv) != 2 or sys.argv[1] not in kinds:
        print(f"usage: python3 {sys.argv[0]} {'|'.join(kinds)}", file=sys.stderr)
        return 2
    kind = sys.argv[1]
    requirements = HERE / f"{kind}.txt"
    target = RUNTIME / kind
    if is_current(target, requirements):
        print(f"{target}: already there", file=sys.stderr)
        return 0
    RUNTIME.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(prefix=f".{kind}-", dir=RUNTIME) as work:
        work = pathlib.Path(work)
        wheels, folder = work / "wheels", work / "folder"
        if not download(requirements, wheels):
            print(remedy(kind), file=sys.stderr)
            return 1
        folder.mkdir()
        for wheel in sorted(wheels.glob("*.whl")):
            unpack(wheel, folder)
        note_digests(folder)
        link_plain_name(folder)
        shutil.copy(requirements, folder / "requirements.txt")  # last: what `is_current` looks at
        if target.exists():
            target.rename(work / "old")
        try:
            folder.rename(target)
        except OSError:
            if not is_current(target, requirements):  # otherwise another fetch was faster, and did the same
                raise
    print(f"{target}: ready", file=sys.stderr)
    return 0


def is_current(target: pathlib.Path, requirements: pathlib.Path) -> bool:
    """Whether the folder was made from these very requirements, and its digests noted."""
    stamp = target / "requirements.txt"
    return (target / "SHA256SUMS").is_file() and stamp.is_file() and stamp.read_bytes() == requirements.read_bytes()


def download(requirements: pathlib.Path, into: pathlib.Path) -> bool:
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--python-version", WHEEL_PYTHON, "--implementation", "cp"]
    command += ["--retries", "2", "--dest", str(into), "--requirement", str(requirements)]
    print(f"fetching {requirements.stem} runtime: {' '.join(pinned(requirements))}", file=sys.stderr)
    return subprocess.run(command, stdout=sys.stderr).returncode == 0


def pinned(requirements: pathlib.Path) -> list[str]:
    return [line.split()[0] for line in requirements.read_text().splitlines() if "==" in line]


def unpack(wheel: pathlib.Path, folder: pathlib.Path) -> None:
    """Lays the shared libraries of a wheel flat into `folder`, with the licences beside them."""
    package = wheel.name.split("-")[0]
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = pathlib.PurePosixPath(entry.filename).name
            if is_library(name):
                out = folder / name
            elif name.startswith(("LICENSE", "License", "ThirdPartyNotices")):
                out = folder / f"{package}-{name}"
            else:
                continue
            with archive.open(entry) as source, open(out, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def is_library(name: str) -> bool:
    # Python's part of the wheel, and what only other programs load.
    if any(part in name for part in ("pybind11", "nvblas", "cufftw", ".alt.")):
        return False
    return name.startswith("lib") and (name.endswith((".so", ".dylib")) or ".so." in name)


def note_digests(folder: pathlib.Path) -> None:
    """`SHA256SUMS`: what each library has to digest to when it is loaded."""
    libraries = sorted(path for path in folder.iterdir() if is_library(path.name))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in libraries]
    (folder / "SHA256SUMS").write_text("".join(lines))


def link_plain_name(folder: pathlib.Path) -> None:
    """`libonnxruntime.so -> libonnxruntime.so.1.31.1`, for programs that ask for the plain name."""
    for library in [*folder.glob("libonnxruntime.so.*"), *folder.glob("libonnxruntime.*.dylib")]:
        plain = folder / ("libonnxruntime.so" if ".so." in library.name else "libonnxruntime.dylib")
        if not plain.exists():
            plain.symlink_to(library.name)


def remedy(kind: str) -> str:
    return f"""error: the {kind} runtime could not be fetched from PyPI (pip's own words are above)
  - no network? fetch the wheels elsewhere with
      python3 -m pip download --no-deps --require-hashes --only-binary=:all: --python-version {WHEEL_PYTHON} -d wheels -r pipelines/runtime/{kind}.txt
    bring the folder here, and run again with PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels in front
  - a library of your own? ORT_DYLIB_PATH=/path/to/libonnxruntime.so is used before any other
  - no pip? your system's package is usually called python3-pip"""


if __name__ == "__main__":
    sys.exit(main())
