# 95, 96: a sleep that no signal ends, and that nobody waits for.
# LIMITS = {"wall": "1s"}
# EXPECTED = {"attack": {"termination": "limit", "limit": "wall"}}

. ./probe.sh

attack() {
    begun
    trap '' TERM INT HUP QUIT USR1 USR2 ALRM PIPE
    for number in 1 2 3; do
        sleep 3600 &
    done
    kill -STOP $$
    sleep 3600
}

twin() {
    works 'a short sleep' sleep 0.01
    trap 'caught=yes' TERM
    kill -TERM $$
    same 'a signal of its own' "$caught" yes
}

finish
