# shellcheck shell=bash disable=SC2034
# Sourced by the run.sh scripts: installs missing Debian packages and configures build/.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
build="$root/build"

# How much memory there is for more, in KB: the machine's, or what a container leaves of it.
free_memory() {
    local least limit used file
    least=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo 2>/dev/null) || true
    least=${least:-4194304}
    for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do # cgroups 2 and 1
        limit=$(cat "$file" 2>/dev/null) && [[ $limit =~ ^[0-9]{1,18}$ ]] || continue
        used=$(awk '/^(anon|rss) / { print $2 }' "$(dirname "$file")/memory.stat" 2>/dev/null) || true
        limit=$(((limit - ${used:-0}) / 1024))
        if [ "$limit" -lt "$least" ]; then least=$limit; fi
    done
    echo "$least"
}

# job_count <processors> <KB of memory>: compilers at work at a time; one takes up to 1.5 GB.
job_count() {
    local most=$(($2 / 1572864))
    if [ "$most" -lt 1 ]; then most=1; fi
    echo $(($1 < most ? $1 : most))
}

jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(job_count "$(nproc 2>/dev/null || echo 2)" "$(free_memory)")}

if command -v ccache >/dev/null; then
    export CMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER-ccache}
    export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS-pch_defines,time_macros} # what it asks for where headers are parsed once
    # Another clone finds what this one compiled; another processor does not, for "native" is another there.
    export CCACHE_BASEDIR=${CCACHE_BASEDIR-$root} CCACHE_NOHASHDIR=${CCACHE_NOHASHDIR-1}
    processor=$(sed -n '/^$/q; /^\(vendor_id\|cpu family\|model\|flags\|Features\|CPU part\)[[:space:]]*:/p' /proc/cpuinfo 2>/dev/null | cksum)
    export CCACHE_NAMESPACE=${CCACHE_NAMESPACE-attnscope-${processor%% *}}
fi

program_packages=(cmake g++ ninja-build libeigen3-dev libfmt-dev libcli11-dev nlohmann-json3-dev libpcre2-dev
                  libboost-dev gnuplot-nox)
test_packages=("${program_packages[@]}" catch2 libbenchmark-dev curl pkg-config python3 python3-mpmath)

# Is the package there? Tools may come from anywhere, libraries are looked up in the package database.
have_package() {
    case $1 in
    cmake | curl | debootstrap | git | pkg-config | python3) command -v "$1" >/dev/null ;;
    clang) command -v clang++ >/dev/null ;;
    ninja-build) command -v ninja >/dev/null ;;
    g++) command -v "${CXX:-c++}" >/dev/null ;;
    gnuplot-nox) command -v gnuplot >/dev/null ;;
    python3-mpmath) python3 -c 'import mpmath' 2>/dev/null || /usr/bin/python3 -c 'import mpmath' 2>/dev/null ;;
    *) dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed ;;
    esac
}

# how_to_install <package>...: what somebody with the right to install has to type; ends the script.
how_to_install() {
    echo "These packages are missing: $*"
    echo "Install them and run this again. As root:"
    echo "    apt-get update && apt-get install -y --no-install-recommends $*"
    echo "or, with the right to use sudo:"
    echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends $*"
    exit 1
} >&2

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
            how_to_install "${missing[@]}"
        fi
    fi
    echo "Installing ${missing[*]}"
    local install=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends)
    # A fresh system has no package lists yet, an old one has outdated ones: then update and try again.
    if ! "${install[@]}" "${missing[@]}" 2>/dev/null; then
        "${sudo[@]}" apt-get update -q || true
        if ! "${install[@]}" "${missing[@]}"; then
            echo "apt-get could not do it."
            how_to_install "${missing[@]}"
        fi
    fi
}

# want_packages <package>...: those of them that this system has to offer, as need_packages.
want_packages() {
    command -v apt-cache >/dev/null || return 0
    local package policy
    for package; do
        policy=$(apt-cache policy "$package" 2>/dev/null) || continue
        if [[ $policy == *"Candidate: "[^\(]* ]]; then need_packages "$package"; fi
    done
}

# announce <CPU minutes> <what>: how long the first run takes; nothing when build/ has been used before.
announce() {
    [ ! -e "$build/.ninja_log" ] || return 0
    local minutes=$((($1 + jobs - 1) / jobs))
    echo "The first run compiles $2 for about $minutes minutes ($1 minutes of work, $jobs at a time); later ones"
    echo "compile what has changed."
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
