# shellcheck shell=bash disable=SC2034
# Sourced by the run.sh scripts: installs missing Debian packages and configures build/.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
build="$root/build"
jobs=$(nproc 2>/dev/null || echo 2)

if command -v ccache >/dev/null; then export CMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER-ccache}; fi

program_packages=(cmake g++ ninja-build libeigen3-dev libfmt-dev libcli11-dev nlohmann-json3-dev libpcre2-dev
                  libboost-dev gnuplot-nox)
test_packages=("${program_packages[@]}" catch2 libbenchmark-dev)

# Is the package there? Tools may come from anywhere, libraries are looked up in the package database.
have_package() {
    case $1 in
    cmake) command -v cmake >/dev/null ;;
    ninja-build) command -v ninja >/dev/null ;;
    g++) command -v "${CXX:-c++}" >/dev/null ;;
    gnuplot-nox) command -v gnuplot >/dev/null ;;
    *) dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed ;;
    esac
}

# need_packages <package>...: installs the missing ones when it may, else names them and stops.
need_packages() {
    command -v dpkg-query >/dev/null || return 0 # not Debian or Ubuntu: CMake says what it misses
    local package missing=() sudo=()
    for package; do
        have_package "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0

    if [ "$(id -u)" -ne 0 ]; then
        sudo=(sudo -n)
        if ! sudo -n true 2>/dev/null; then
            echo "These packages are missing: ${missing[*]}"
            echo "Install them and run this again:  sudo apt-get install ${missing[*]}"
            exit 1
        fi
    fi
    echo "Installing ${missing[*]}"
    local install=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends)
    # A fresh system has no package lists yet, an old one has outdated ones: then update and try again.
    if ! "${install[@]}" "${missing[@]}" 2>/dev/null; then
        "${sudo[@]}" apt-get update -q || true
        if ! "${install[@]}" "${missing[@]}"; then
            echo "These packages are missing and apt-get could not install them: ${missing[*]}"
            echo "Install them and run this again:  apt-get install ${missing[*]}"
            exit 1
        fi
    fi
}

# configure <NAME=VALUE>... [-- <NAME=VALUE>...]: the native preset in build/ with the first settings; those after
# the -- only on the first time, so that two scripts share build/ without undoing each other. Nothing is done when
# all is configured already (Ninja notices changed CMake files by itself).
configure() {
    local cache="$build/CMakeCache.txt" settings=() first=() setting fresh=no changed=no
    for setting; do
        shift
        [ "$setting" = -- ] && break
        settings+=("-D$setting")
        grep -q "^${setting%%=*}:[A-Z]*=${setting#*=}\$" "$cache" 2>/dev/null || changed=yes
    done
    for setting; do first+=("-D$setting"); done

    # A cache of another place (the folder was moved) or of another generator cannot be used.
    grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$cache" 2>/dev/null &&
        grep -qxF "CMAKE_GENERATOR:INTERNAL=Ninja" "$cache" && [ -f "$build/build.ninja" ] || fresh=yes
    cd "$root" # presets are read from the working directory
    if [ $fresh = yes ]; then
        cmake --preset native --fresh "${first[@]}" "${settings[@]}"
    elif [ $changed = yes ]; then
        cmake --preset native "${settings[@]}"
    fi
}
