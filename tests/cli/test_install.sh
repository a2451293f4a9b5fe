#!/usr/bin/env bash
# `cmake --install`: the programs run from where they were put, the recipes lie beside them.
. "$(dirname "$0")/../train/tiny_runs.sh"
command -v cmake >/dev/null || exit 77
place=$work/place
cmake --install "$(dirname "$bin")" --prefix "$place" >"$work/out" || { cat "$work/out"; fail 'cmake --install'; }
for program in "$bin"/f2b-*; do
    name=$(basename "$program")
    "$place/bin/$name" --version >"$work/out" && grep -q "^$name " "$work/out" || fail "$name --version"
done
diff -r configs "$place/share/fwd2bot/configs" || fail 'configs'
for config in configs/*.yaml; do
    [ -e "$place/share/fwd2bot/$config" ] || fail "$config is not installed"
done
cd / && "$place/bin/f2b-train" --config "$work/run.yaml" train.steps=2 --quiet || fail 'a run'
finish
