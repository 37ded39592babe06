# 67, 78 to 80: programs started in roundabout ways are as locked in as any.

. ./probe.sh

locks='^(CapInh|CapPrm|CapEff|CapBnd|CapAmb):	0+$|^NoNewPrivs:	1$|^Seccomp:	2$'

# How many of the seven locks a program finds, started by these words.
count() { "$@" -Ec "$locks" /proc/self/status; }

attack() {
    loader=$(ls /lib64/ld-linux-*.so.* /lib/ld-linux-*.so.* /lib/ld-musl-*.so.* 2> /dev/null | head -n 1)
    grep=$(command -v grep)
    same loader "$(count "$loader" "$grep")" 7
    cp "$grep" /tmp/written
    chmod 6777 /tmp/written
    same written "$(count /tmp/written)" 7
    same 'written, by the loader' "$(count "$loader" /tmp/written)" 7
    ln -s "$grep" /tmp/linked
    same linked "$(count /tmp/linked)" 7
    printf '#!/bin/sh\nexec %s "$@"\n' "$grep" > script
    chmod +x script
    same script "$(count ./script)" 7
    same 'by a variable for the loader' "$(LD_PRELOAD=/tmp/none.so LD_LIBRARY_PATH=/tmp count "$grep" 2> /dev/null)" 7
    same 'by a variable for the shell' "$(BASH_ENV=/tmp/none ENV=/tmp/none sh -c 'grep -Ec "$1" /proc/self/status' _ "$locks")" 7
    refused 'a loader that is written' sh -c 'echo x >> "$1"' _ "$loader"
    refused 'what the loader always loads' sh -c 'echo x > /etc/ld.so.preload'
    refused 'where the loader looks' sh -c 'echo x >> /etc/ld.so.cache'
}

twin() {
    same locks "$(count grep)" 7
    printf '#!/bin/sh\necho fine\n' > /tmp/honest
    chmod +x /tmp/honest
    same 'a script of its own' "$(/tmp/honest)" fine
}

finish
