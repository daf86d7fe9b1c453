"""Puts together what compiles CUDA sources, from packages: nobody has to install a toolkit.

    python release/cuda_toolkit.py 13 build/cuda13
    CUDA_HOME=$PWD/build/cuda13 FORCE_CUDA=1 pip install --no-build-isolation .

All of CUDA 13 is on PyPI. Of CUDA 12, PyPI has the headers, the runtime and ptxas, but not nvcc and
its parts, which a package of Debian adds. The versions are the oldest of each major one that do: a
library that is compiled with them runs with the drivers of all later ones.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

PACKAGES = {
    "12": (
        "nvidia-cuda-runtime-cu12==12.4.127",
        "nvidia-cuda-nvcc-cu12==12.4.131",
        "nvidia-cuda-cccl-cu12==12.4.127.post1",
    ),
    "13": (
        "nvidia-cuda-runtime==13.0.96",
        "nvidia-cuda-nvcc==13.0.88",
        "nvidia-nvvm==13.0.88",
        "nvidia-cuda-crt==13.0.88",
        "nvidia-cuda-cccl==13.0.85",
    ),
}
DEBIAN = (
    "http://deb.debian.org/debian/pool/non-free/n/nvidia-cuda-toolkit/"
    "nvidia-cuda-toolkit_12.4.131~12.4.1-2_amd64.deb"
)
DEBIAN_SHA256 = "cd5fe85aee38d108b315f408a688641478f2402622a10c677478eb7a6c4e5319"
# Where Debian has them, and where nvcc looks for them.
PROGRAMS = {
    "usr/lib/nvidia-cuda-toolkit/bin/nvcc": "bin/nvcc",
    "usr/lib/nvidia-cuda-toolkit/bin/cicc": "nvvm/bin/cicc",
    "usr/bin/cudafe++": "bin/cudafe++",
    "usr/bin/ptxas": "bin/ptxas",
    "usr/bin/fatbinary": "bin/fatbinary",
    "usr/bin/nvlink": "bin/nvlink",
    "usr/bin/bin2c": "bin/bin2c",
}
# nvcc's settings, which Debian's package has for Debian's folders.
PROFILE = """
TOP = $(_HERE_)/..
CICC_PATH = $(TOP)/nvvm/bin
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(CICC_PATH):$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib"
"""


def gather(major: str, out: Path) -> None:
    """The toolkit of that major version in ``out``, which appears when it is complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        folder, toolkit = Path(name), Path(name) / "toolkit"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-cache-dir"]
        pip += ["--only-binary", ":all:", "--target", str(folder / "pip"), *PACKAGES[major]]
        subprocess.run(pip, check=True)
        # CUDA 12 has a folder for each part, CUDA 13 one for all.
        for part in (folder / "pip" / "nvidia").iterdir():
            if part.is_dir() and part.name != "__pycache__":
                shutil.copytree(part, toolkit, dirs_exist_ok=True)
        if major == "12":
            add_programs(folder, toolkit)
        runtime = toolkit / "lib" / "libcudart.so"
        runtime.symlink_to(f"{runtime.name}.{major}")
        (toolkit / "lib64").symlink_to("lib")
        for program in (*toolkit.glob("bin/*"), *toolkit.glob("nvvm/bin/*")):
            program.chmod(0o755)
        subprocess.run([toolkit / "bin" / "nvcc", "--version"], check=True, capture_output=True)
        toolkit.rename(out)


def add_programs(folder: Path, toolkit: Path) -> None:
    with urllib.request.urlopen(DEBIAN, timeout=300) as response:
        package = response.read()
    if (found := hashlib.sha256(package).hexdigest()) != DEBIAN_SHA256:
        raise SystemExit(f"error: {DEBIAN} has the SHA-256 {found}, expected {DEBIAN_SHA256}")
    (folder / "toolkit.deb").write_bytes(package)
    subprocess.run(["ar", "x", "toolkit.deb"], cwd=folder, check=True)
    (data,) = folder.glob("data.tar.*")
    with tarfile.open(data) as archive:
        for source, target in PROGRAMS.items():
            (toolkit / target).parent.mkdir(parents=True, exist_ok=True)
            (toolkit / target).write_bytes(archive.extractfile(f"./{source}").read())
    (toolkit / "bin" / "nvcc.profile").write_text(PROFILE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("major", choices=sorted(PACKAGES), help="major version of CUDA")
    parser.add_argument("out", type=Path, help="folder of the toolkit, which must not exist")
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} exists")
    gather(options.major, options.out)


if __name__ == "__main__":
    main()
