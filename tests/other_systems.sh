#!/usr/bin/env bash
# Do the README's two commands work elsewhere? Makes a bare Debian of every RELEASE (trixie unless given) in a folder,
# puts the committed state of this project into it with ../shared beside it, runs the two commands there as root, and ends
# with a table of outcomes, times and versions.
#   tests/other_systems.sh [RELEASE...]
#   tests/other_systems.sh --command 'tests/run.sh -L unit' [RELEASE...]   that instead of the two; may be repeated
# Needs root, debootstrap and 10 GB in ATTNSCOPE_SYSTEMS (/var/tmp unless set). Packages come from where apt of this
# system takes Debian's, by its proxies and keys. Status: 0 all passed, 1 a command failed, 2 wrong use, 77 no such system
# can be made here.
. "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"

say() { echo "other_systems.sh: $*" >&2; }
arguments=("$@") releases=() commands=()
while [ $# -gt 0 ]; do
    case $1 in
    --command)
        [ $# -ge 2 ] || { say "--command needs a command"; exit 2; }
        commands+=("$2")
        shift
        ;;
    -* | "")
        say "expected [--command COMMAND]... [RELEASE]..., got '$1'"
        exit 2
        ;;
    *) releases+=("$1") ;;
    esac
    shift
done
[ ${#releases[@]} -gt 0 ] || releases=(trixie)
# Commands of one's own find what others before them compiled, where ccache is installed here; the README's two find a bare
# system, and take what they would take there.
cache=""
if [ ${#commands[@]} -gt 0 ]; then
    if command -v ccache >/dev/null; then cache=$(ccache --get-config cache_dir 2>/dev/null) || true; fi
else
    commands=(examples/run.sh tests/run.sh)
fi

# In a namespace of its own: however this script ends, its mounts end with it.
if [ -z "${ATTNSCOPE_OWN_MOUNTS-}" ]; then
    [ "$(id -u)" -eq 0 ] || { say "a system in a folder needs root"; exit 77; }
    (need_packages debootstrap git) || { say "debootstrap or git is missing"; exit 77; }
    unshare --mount true 2>/dev/null || { say "mounting is not allowed here"; exit 77; }
    ATTNSCOPE_OWN_MOUNTS=1 exec unshare --mount --propagation private "${BASH_SOURCE[0]}" "${arguments[@]}"
fi

# ---- where packages come from
sources() { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true; }
mirror=$(sources | sed -nE 's/^(URIs:|deb( +\[[^]]*\])?)[[:space:]]+(https?:[^[:space:]]*\/debian)\/?([[:space:]].*)?$/\3/p' | head -n 1)
mirror=${mirror:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || keyring=$(sources | sed -nE 's/^Signed-By:[[:space:]]*(\/[^[:space:]]*debian[^[:space:]]*)$/\1/p' | head -n 1)
apt_options=$(apt-config dump --no-empty --format '%F "%v";%n' Acquire |
    grep -E '^Acquire::(http|https|Retries|Check-Valid-Until|Check-Date)' || true)
proxy=$(sed -nE 's/^Acquire::http::Proxy "(.*)";$/\1/p' <<<"$apt_options" | head -n 1)
if [ -n "$proxy" ]; then export http_proxy=${http_proxy-$proxy} https_proxy=${https_proxy-$proxy}; fi

# ---- a system in a folder
tree="" inside=""
cleanup() {
    if [ -n "$inside" ]; then kill -KILL -- "-$inside" 2>/dev/null || true; fi
    if [ -n "$tree" ]; then
        local point
        for point in dev proc sys src/shared root/.cache/ccache; do umount -R -l "$tree/$point" 2>/dev/null || true; done
        rm -rf --one-file-system "$tree" "$tree.log"
    fi
    tree="" inside=""
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# inside_tree <command>: by a shell of the system, in its copy of the project. A process group of its own, so that all of
# it can be ended.
inside_tree() {
    local variables=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8) name
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY CMAKE_BUILD_PARALLEL_LEVEL; do
        [ -z "${!name-}" ] || variables+=("$name=${!name}")
    done
    set -m
    env -i "${variables[@]}" chroot "$tree" bash -c "cd /src/attnscope && $1" </dev/null &
    inside=$!
    set +m
    local status=0
    wait "$inside" || status=$?
    inside=""
    return "$status"
}

make_tree() { # <release>
    tree=$(mktemp -d "${ATTNSCOPE_SYSTEMS:-/var/tmp}/attnscope-$1.XXXXXX")
    chmod 755 "$tree"
    debootstrap --variant=minbase ${cache:+--include=ccache} ${keyring:+"--keyring=$keyring"} "$1" "$tree" "$mirror" >"$tree.log" 2>&1 || {
        tail -n 20 "$tree.log" "$tree/debootstrap/debootstrap.log" 2>/dev/null >&2 || true
        rm -f "$tree.log"
        say "debootstrap could not make $1 from $mirror"
        exit 77
    }
    rm -f "$tree.log"
    echo "$apt_options" >"$tree/etc/apt/apt.conf.d/90host"
    cp -L /etc/resolv.conf /etc/hosts "$tree/etc/"
    mount --rbind /dev "$tree/dev"
    mount -t proc proc "$tree/proc"
    mount --rbind /sys "$tree/sys"
    if [ -n "$cache" ]; then
        mkdir -p "$cache/systems/$1" "$tree/root/.cache/ccache"
        mount --bind "$cache/systems/$1" "$tree/root/.cache/ccache"
    fi
    mkdir -p "$tree/src/attnscope"
    git -c safe.directory='*' -C "$root" archive HEAD | tar -x -C "$tree/src/attnscope"
    if [ -d "$root/../shared" ]; then
        mkdir "$tree/src/shared"
        mount --bind "$root/../shared" "$tree/src/shared"
        mount -o remount,bind,ro "$tree/src/shared"
    fi
}

[ -z "$(git -c safe.directory='*' -C "$root" status --porcelain 2>/dev/null)" ] || say "what is not committed stays out"
table="" failed=0
for release in "${releases[@]}"; do
    printf '\n== Debian %s from %s\n' "$release" "$mirror"
    start=$SECONDS
    make_tree "$release"
    table+=$(printf '%-10s %-44s %-8s %5d s' "$release" "the bare system" made $((SECONDS - start)))$'\n'
    for command in "${commands[@]}"; do
        printf '\n== Debian %s: %s\n' "$release" "$command"
        start=$SECONDS outcome=passed
        inside_tree "$command" || outcome=FAILED failed=1
        table+=$(printf '%-10s %-44s %-8s %5d s' "$release" "$command" "$outcome" $((SECONDS - start)))$'\n'
    done
    # shellcheck disable=SC2016
    table+=$(inside_tree '
        . /etc/os-release
        printf "%s:" "$PRETTY_NAME"
        for package in g++ cmake catch2 libbenchmark-dev libboost-dev libcli11-dev libeigen3-dev libfmt-dev \
            nlohmann-json3-dev libpcre2-dev gnuplot-nox python3; do
            dpkg-query -W -f " \${Package} \${Version}," $package 2>/dev/null
        done | sed "s/,\$//"' || true)$'\n'
    cleanup
done
printf '\n%s' "$table"
exit "$failed"
