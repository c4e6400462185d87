# redis-cli: mass insertion with --pipe, scripts from files with --eval.
. "$SUPPORT/harness.sh"

protocol() {
    awk 'BEGIN { for (n = 1; n <= 50000; n++) {
        key = "key:" n; value = "value:" n
        printf "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", length(key), key, length(value), value
    } }'
}

answer=$(protocol | cli --pipe)
same "50000 replies and no error" "errors: 0, replies: 50000" "$(printf '%s\n' "$answer" | tail -1)"
same "every key is there" 50000 "$(cli DBSIZE)"
same "with its value" value:31415 "$(cli GET key:31415)"

answer=$(printf 'SET a 1\r\nLPUSH a x\r\nINCR a\r\n' | cli --pipe 2>&1)
same "errors in a pipe are counted" "errors: 1, replies: 3" "$(printf '%s\n' "$answer" | tail -1)"
same "and the other commands ran" 2 "$(cli GET a)"

script="$SCRATCH/sum.lua"
cat >"$script" <<'LUA'
local sum = 0
for _, key in ipairs(KEYS) do sum = sum + (tonumber(redis.call("GET", key)) or 0) end
return { sum, ARGV[1], #KEYS }
LUA
cli MSET n1 10 n2 20 n3 12 >/dev/null
same "a script from a file" "$(printf '42\nname\n3')" "$(cli --eval "$script" n1 n2 n3 , name)"
digest=$(cli SCRIPT LOAD "return ARGV[1]")
same "a loaded script has the SHA-1 of its text" "098e0f0d1448c0a81dafe820f66d460eb09263da" "$digest"
same "and runs by it" x "$(cli EVALSHA "$digest" 0 x)"

subscriber="$SCRATCH/subscriber.txt"
redis-cli -h "$REDIS_HOST" -p "$REDIS_PORT" SUBSCRIBE news >"$subscriber" &
pid=$!
for _ in $(seq 2000); do
    [ "$(cli PUBSUB NUMSUB news | tail -1)" = 1 ] && break
done
same "a message reaches the subscriber" 1 "$(cli PUBLISH news hello)"
for _ in $(seq 2000); do
    [ "$(grep -c . "$subscriber")" -ge 6 ] && break
done
kill "$pid"
wait "$pid" 2>/dev/null
same "with its channel and text" "$(printf 'subscribe\nnews\n1\nmessage\nnews\nhello')" "$(cat "$subscriber")"
finish
