"""The scripts that build what is released."""

import runpy
import zipfile
from types import SimpleNamespace

import pytest
import yaml


@pytest.fixture
def build_wheel(root):
    return SimpleNamespace(**runpy.run_path(str(root / "release" / "build_wheel.py")))


@pytest.fixture
def cuda_toolkit(root):
    return SimpleNamespace(**runpy.run_path(str(root / "release" / "cuda_toolkit.py")))


@pytest.mark.parametrize(
    "libraries, cuda, accepted",
    [
        (["_C.so"], 0, True),
        (["_C.so", "_C_cuda12.so", "_C_cuda13.so"], 2, True),
        (["_C.so", "_C_cuda13.so"], 2, False),
        (["_C_cuda13.so"], 0, False),
        ([], 0, False),
    ],
)
def test_wheel_has_the_wanted_libraries(build_wheel, tmp_path, libraries, cuda, accepted):
    wheel = tmp_path / "mmdcn-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ["__init__.py", *libraries]:
            archive.writestr(f"mmdcn/{name}", "")
    if accepted:
        build_wheel.check(wheel, [tmp_path] * cuda)
    else:
        with pytest.raises(SystemExit, match="error: mmdcn-1-py3-none-any.whl has"):
            build_wheel.check(wheel, [tmp_path] * cuda)


def test_wheel_that_is_too_large(build_wheel, tmp_path):
    wheel = tmp_path / "mmdcn-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mmdcn/_C.so", bytes(build_wheel.LARGEST))
    with pytest.raises(SystemExit, match=r"has \d+ bytes"):
        build_wheel.check(wheel, [])


def test_toolkit_takes_all_packages_of_its_major_version(cuda_toolkit):
    for major, packages in cuda_toolkit.PACKAGES.items():
        versions = [package.split("==")[1] for package in packages]
        assert {version.split(".")[0] for version in versions} == {major}
        assert len({tuple(version.split(".")[:2]) for version in versions}) == 1
    assert "12.4" in cuda_toolkit.DEBIAN and len(cuda_toolkit.DEBIAN_SHA256) == 64


def test_toolkit_that_was_changed_on_the_way_is_refused(cuda_toolkit, tmp_path):
    file = tmp_path / "some.deb"
    file.write_bytes(b"not what was pinned")
    cuda_toolkit.add_programs.__globals__["DEBIAN"] = file.as_uri()
    with pytest.raises(SystemExit, match=f"expected {cuda_toolkit.DEBIAN_SHA256}"):
        cuda_toolkit.add_programs(tmp_path, tmp_path / "toolkit")
    assert not (tmp_path / "toolkit").exists()


def test_workflow_builds_what_the_scripts_know(root, cuda_toolkit):
    workflow = yaml.safe_load((root / ".github" / "workflows" / "release.yml").read_text())
    wheels = workflow["jobs"]["wheel"]["strategy"]["matrix"]["include"]
    assert [wheel["arch"] for wheel in wheels] == ["x86_64", "aarch64"]
    majors = wheels[0]["toolkits"].split()
    assert majors == sorted(cuda_toolkit.PACKAGES)
    assert wheels[0]["homes"] == ":".join(f"/project/build/cuda{major}" for major in majors)
    assert set(workflow["jobs"]["publish"]["needs"]) == {"wheel", "sdist", "try"}
