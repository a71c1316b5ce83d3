"""Conan 2 recipe of the sources around it: conan create packaging/conan"""

import os
import re

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeToolchain
from conan.tools.files import copy, load


class AttnscopeConan(ConanFile):
    name = "attnscope"
    description = "Header-only analysis of softmax attention on Eigen: concentration, selection, sensitivity"
    license = "MIT"
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"fmt": [True, False], "io": [True, False], "special": [True, False]}
    default_options = {"fmt": False, "io": False, "special": False}
    no_copy_source = True

    def _sources(self):
        return os.path.join(self.recipe_folder, os.pardir, os.pardir)

    def set_version(self):
        config = load(self, os.path.join(self._sources(), "include", "attnscope", "config.hpp"))
        self.version = ".".join(re.findall(r"#define ATTNSCOPE_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", config))

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "CHANGELOG.md", "cmake/*", "include/*"):
            copy(self, pattern, self._sources(), self.export_sources_folder)

    def requirements(self):
        self.requires("eigen/3.4.0", transitive_headers=True)
        if self.options.fmt:
            self.requires("fmt/[>=9]", transitive_headers=True)
        if self.options.io:
            self.requires("nlohmann_json/[>=3.11]", transitive_headers=True)
        if self.options.special:
            self.requires("boost/[>=1.74]", transitive_headers=True)

    def package_id(self):
        self.info.clear()

    def generate(self):
        toolchain = CMakeToolchain(self)
        for option in (
            "ATTNSCOPE_BUILD_TESTS",
            "ATTNSCOPE_BUILD_EXAMPLES",
            "ATTNSCOPE_BUILD_BENCHMARKS",
            "ATTNSCOPE_FETCH",
        ):
            toolchain.cache_variables[option] = False
        toolchain.generate()

    def build(self):
        # Headers only: Eigen's directory is what the configuration asks for.
        eigen = self.dependencies["eigen"].package_folder
        cmake = CMake(self)
        cmake.configure(variables={"CMAKE_PREFIX_PATH": eigen.replace("\\", "/")})

    def package(self):
        CMake(self).install()

    def package_info(self):
        # The package's own files know its components: attnscope::attnscope, ::fmt, ::io, ::special, ::tensor.
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("share", "cmake", "attnscope")]
