# 63, 64: children that hold the output open, in sessions of their own, and would wait for ever.

. ./probe.sh

attack() {
    begun
    for number in 1 2 3; do
        setsid sh -c 'trap "" TERM HUP INT QUIT; while :; do sleep 1000; done' &
    done
    (setsid sh -c 'trap "" HUP TERM; sleep 1000' &)
    nohup sleep 1000 > /dev/null 2>&1 &
    works 'all are there' sleep 0.1
}

twin() {
    sh -c 'sleep 0.05; echo waited for' &
    works 'a child waited for' wait $!
}

finish
