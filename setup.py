"""Puts the configs and the quickstart's data, which lie beside the package, inside it when a wheel is built."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHIPPED = ("configs", "data")


class BuildWithShippedFiles(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:  # an editable installation reads them where they are
            return
        for name in SHIPPED:
            shutil.copytree(ROOT / name, Path(self.build_lib) / "lightning_bnf/shipped" / name, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithShippedFiles})
