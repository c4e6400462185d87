# Checks for scenarios in shell: `same SENTENCE EXPECTED ACTUAL`, and `finish` at the end.
set -u
failed=0

cli() {
    redis-cli -h "$REDIS_HOST" -p "$REDIS_PORT" "$@"
}

same() {
    if [ "$2" = "$3" ]; then
        echo "ok - $1"
    else
        failed=1
        echo "not ok - $1: $(printf '%q is not %q' "$3" "$2")"
    fi
}

finish() {
    exit "$failed"
}
