"""What a wheel holds: the packages, and as `fasp_studio/site` the app as it lies here; see pyproject.toml too."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

SITE = "fasp_studio.site"
core = find_packages(include=["fasp_core*", "fasp_studio*"])
pages = [p for p in (Path("pages"), *sorted(Path("pages").rglob("*"))) if p.is_dir() and any(p.glob("*.py"))]
parts = {f"{SITE}.{'.'.join(folder.parts)}": folder.as_posix() for folder in pages}


class Build(build_py):
    """Leaves out this file, which lies beside `app.py`."""

    def find_package_modules(self, package, package_dir):
        return [found for found in super().find_package_modules(package, package_dir) if found[1] != "setup"]


setup(
    cmdclass={"build_py": Build},
    packages=[*core, SITE, *parts],
    package_dir={SITE: ".", **parts},
    package_data={
        **{package: ["*"] for package in core},
        **{package: ["*.js", "*.css"] for package in parts},
        SITE: [
            ".streamlit/config.toml",
            "docs/icon.png",
            "requirements-data.txt",
            "cache/README.md",
            *(f"cache/{kind}/built-in--*/*" for kind in ("scores", "words", "experiments", "suites", "gains", "tasks")),
        ],
    },
)
