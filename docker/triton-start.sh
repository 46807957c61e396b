#!/bin/bash
# The first process of the GPU images: starts tritonserver, or the program that its arguments name, passes signals on to
# it, and ends with it.
#
# With VILIX_MPI=1 the program becomes the one rank of an MPI job, in which TensorRT-LLM starts a process for each GPU.
# Signals go to the program itself: mpirun would kill it a second later.
set -u

case "${1:--}" in
-*) set -- tritonserver "$@" ;;
esac
if [[ $1 == tritonserver ]]; then
    # Triton cannot leave these interfaces out. They need a header whose value nobody knows.
    lock="shared-memory,model-repository,trace,logging:unused=$(head -c 16 /dev/urandom | od -An -v -tx1 | tr -d ' \n')"
    set -- "$@" "--http-restricted-api=$lock" "--grpc-restricted-protocol=$lock"
fi

pid_file=$(mktemp) || exit 1
launcher=()
if [[ ${VILIX_MPI:-0} == 1 ]]; then
    launcher=(mpirun -n 1 --bind-to none --oversubscribe)
    [[ $(id -u) != 0 ]] || launcher+=(--allow-run-as-root)
fi

# shellcheck disable=SC2016 # expanded by the inner shell, whose process becomes the program
"${launcher[@]}" bash -c 'echo $$ >"$0" && exec "$@"' "$pid_file" "$@" &
child=$!

# Whether a process runs. One that has ended and was not waited for yet still takes signals.
runs() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null && [[ ${stat##*) } != [ZX]* ]]
}

stopping=0
stop() {
    local program
    stopping=1
    program=$(<"$pid_file")
    kill -TERM "${program:-$child}" 2>/dev/null
}
trap stop TERM INT QUIT HUP

# After the program, mpirun has a few seconds to end: it waits for processes that the program has left behind, which end
# with this process at the latest.
left=25
killed=0
while kill -0 "$child" 2>/dev/null; do
    program=$(<"$pid_file")
    if [[ -n $program ]] && ! runs "$program"; then
        ((left-- > 0)) || { killed=1 && kill -KILL "$child" 2>/dev/null; }
    fi
    # Signals interrupt `wait`, but not `sleep`.
    sleep 0.2 &
    wait -n "$child" $!
done
wait "$child" 2>/dev/null
status=$?
((killed == 0)) || status=$((stopping ? 0 : 1))
rm -f "$pid_file"
exit "$status"
