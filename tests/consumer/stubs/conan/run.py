"""run.py <recipe> <work> <cmake> <prefix of Eigen> <version>: the steps of conan create, into <work>/package."""

import importlib.util
import os
import sys
import types

sys.dont_write_bytecode = True
recipe_path, work, cmake, eigen, version = sys.argv[1:]
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
spec = importlib.util.spec_from_file_location("recipe", recipe_path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

recipe = module.AttnscopeConan()
recipe.recipe_folder = os.path.dirname(os.path.abspath(recipe_path))
recipe.cmake = cmake
recipe.export_sources_folder, recipe.build_folder, recipe.package_folder = (
    os.path.join(work, name) for name in ("sources", "built", "package")
)
recipe.options = types.SimpleNamespace(**dict.fromkeys(recipe.options, True))
recipe.dependencies = {"eigen": types.SimpleNamespace(package_folder=eigen)}
recipe.required = []
recipe.requires = lambda name, **_: recipe.required.append(name.split("/")[0])
recipe.cpp_info = types.SimpleNamespace(set_property=lambda *_: None)

recipe.set_version()
assert recipe.version == version, f"the recipe reads version {recipe.version}"
recipe.export_sources()
recipe.requirements()
assert recipe.required == ["eigen", "fmt", "nlohmann_json", "boost"], recipe.required
recipe.generate()
recipe.build()
recipe.package()
recipe.package_info()
for folder in recipe.cpp_info.builddirs:
    assert os.path.exists(os.path.join(recipe.package_folder, folder, "attnscopeConfig.cmake")), folder
