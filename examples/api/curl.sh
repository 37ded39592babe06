#!/usr/bin/env bash
# The exec API with curl alone. Start a server, then this:
#
#   runner serve --listen unix:/tmp/runner.sock &
#   examples/api/curl.sh /tmp/runner.sock
set -euo pipefail
socket=${1:?which socket does the server listen at}

api() { # address, then what curl shall do
    local address=$1
    shift
    curl --silent --show-error --unix-socket "$socket" \
        --header 'Content-Type: application/json' "$@" "http://runner$address"
}

# One value of an answer: `get exit_code`, `get decision effect`.
get() {
    python3 -c 'import functools, json, sys
print(functools.reduce(lambda part, key: part[key], sys.argv[1:], json.load(sys.stdin)))' "$@"
}

echo '1. Run something, and wait for what comes of it.'
api /v1/runs --data '{
    "code": "print(open(\"n\").read() * 3)", "language": "python",
    "files": {"n": "7"}, "agent": "curl", "limits": {"wall": "10s"}
}' | get stdout

echo '2. Begin it only, and follow its events; --no-buffer shows them as they come.'
run=$(api /v1/runs --data '{"shell": "echo one; echo two", "agent": "curl", "wait": false}' | get id)
api "/v1/runs/$run/events" --no-buffer | grep '^event:'

echo '3. Ask what would be decided, and run nothing.'
api /v1/decisions --data '{"argv": ["sudo", "ls"], "agent": "curl"}' | get decision effect

echo '4. A denial is an outcome like any other, and says why.'
denied=$(api /v1/runs --data '{"argv": ["sudo", "ls"], "agent": "curl"}')
get termination <<< "$denied"
get decision reason <<< "$denied"

echo '5. The same request under the same key is the same run, however often it is sent.'
for _ in 1 2; do
    api /v1/runs --header 'Idempotency-Key: build-17' --data '{"argv": ["true"], "agent": "curl"}' |
        get run_id
done

echo '6. A session: the next command finds what the last one left.'
session=$(api /v1/sessions --data '{"agent": "curl", "files": {"n": "7"}, "lifetime": "5m"}' | get id)
api "/v1/sessions/$session/runs" --data '{"shell": "echo $(($(cat n) * 6)) > out"}' | get termination
api "/v1/sessions/$session/files?path=out"
api "/v1/sessions/$session" --request DELETE | get termination
