"""What the recipe uses of Conan's file helpers."""

import glob
import os
import shutil


def load(_recipe, path):
    with open(path) as file:
        return file.read()


def copy(_recipe, pattern, source, target):
    found = glob.glob(os.path.join(source, pattern))
    assert found, f"nothing matches {pattern}"
    for path in found:
        place = os.path.join(target, os.path.relpath(path, source))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.isdir(path):
            shutil.copytree(path, place)
        else:
            shutil.copy(path, place)
