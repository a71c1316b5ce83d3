#!/usr/bin/env bash
# tests/reference/tables.hpp is what its generator writes. Skipped where no Python has mpmath.
folder="$(dirname "${BASH_SOURCE[0]}")/../reference"
for python in python3 /usr/bin/python3; do
    if "$python" -c 'import mpmath' 2>/dev/null; then
        exec "$python" "$folder/generate_tables.py" --check "$folder/tables.hpp"
    fi
done
echo "skipped: python3 with mpmath is not installed" >&2
exit 77
