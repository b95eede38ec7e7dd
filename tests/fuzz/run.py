"""Run one target under atheris; further arguments are libFuzzer's."""

import sys

import atheris

with atheris.instrument_imports(include=["tagsync"]):
    import tagsync.registries.swr.api  # noqa: F401  imported here to be instrumented

from tests.fuzz.targets import TARGETS

name = sys.argv.pop(1)
atheris.Setup(sys.argv, TARGETS[name])
atheris.Fuzz()
