"""What the recipe uses of Conan's CMake helpers."""

import subprocess


class CMakeToolchain:
    def __init__(self, recipe):
        self.recipe = recipe
        self.cache_variables = {}

    def generate(self):
        self.recipe.cache_variables = dict(self.cache_variables)


class CMake:
    def __init__(self, recipe):
        self.recipe = recipe

    def configure(self, variables):
        entries = {**self.recipe.cache_variables, **variables}
        options = [f"-D{name}={'ON' if value is True else 'OFF' if value is False else value}" for name, value in entries.items()]
        self.run("-S", self.recipe.export_sources_folder, "-B", self.recipe.build_folder, *options)
        with open(f"{self.recipe.build_folder}/CMakeCache.txt") as cache:
            known = cache.read()
        for name in self.recipe.cache_variables:
            assert f"{name}:BOOL=OFF" in known, f"{name} is no option of the project"

    def install(self):
        self.run("--install", self.recipe.build_folder, "--prefix", self.recipe.package_folder)

    def run(self, *arguments):
        subprocess.run([self.recipe.cmake, *arguments], check=True, stdout=subprocess.DEVNULL)
