#!/usr/bin/env bash
# run.sh [SECONDS [SEED]]: attacks every statement of docs/bounds.md for SECONDS (600) in all, from a new seed each time
# unless one is given, and prints the largest ratio of the two sides of each. Status 1 when one is violated, or not
# attained. ATTNSCOPE_ATTACK="theorem1_fixed": this one only.
. "$(dirname "${BASH_SOURCE[0]}")/../../cmake/setup.sh"
seconds=${1:-600} seed=${2:-$(date +%s)}
[[ $seconds =~ ^[1-9][0-9]*$ && $seed =~ ^[0-9]+$ ]] ||
    { echo "SECONDS and SEED must be whole numbers, got $seconds $seed" >&2; exit 2; }
{
    need_packages "${test_packages[@]}"
    configure ATTNSCOPE_BUILD_TESTS=ON
    cmake --build "$build" --target attnscope_attack --parallel "$jobs"
} </dev/null
echo "seed $seed"
exec "$build/bin/attnscope_attack" --seconds "$seconds" --seed "$seed" ${ATTNSCOPE_ATTACK:+--only "$ATTNSCOPE_ATTACK"}
