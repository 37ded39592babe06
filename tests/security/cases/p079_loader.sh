# 67, 78 to 80: programs started in roundabout ways are as locked in as any.

. ./probe.sh

# What a Python finds of its own locks, started by these words.
locks() { "$@" -I -S locks.py; }

attack() {
    loader=$(ls /lib64/ld-linux-*.so.* /lib/ld-linux-*.so.* /lib/ld-musl-*.so.* 2> /dev/null | head -n 1)
    python=$(readlink -f "$(command -v python3)")
    same loader "$(locks "$loader" "$python")" locked
    cp "$python" "$TMPDIR/written"
    chmod 6777 "$TMPDIR/written" 2> /dev/null || true # not everywhere can such bits be given
    same written "$(locks "$TMPDIR/written")" locked
    same 'written, by the loader' "$(locks "$loader" "$TMPDIR/written")" locked
    ln -s "$python" "$TMPDIR/linked"
    same linked "$(locks "$TMPDIR/linked")" locked
    cp /bin/sh script # which can be executed already
    printf '#!/bin/sh\nexec %s "$@"\n' "$python" > script
    same script "$(locks ./script)" locked
    same 'by a variable for the loader' "$(LD_PRELOAD=$TMPDIR/none.so LD_LIBRARY_PATH=$TMPDIR locks "$python" 2> /dev/null)" locked
    same 'by a variable for the shell' "$(BASH_ENV=$TMPDIR/none ENV=$TMPDIR/none sh -c 'python3 -I -S locks.py')" locked
    refused 'a loader that is written' sh -c 'echo x >> "$1"' _ "$loader"
    refused 'what the loader always loads' sh -c 'echo x > /etc/ld.so.preload'
    refused 'where the loader looks' sh -c 'echo x >> /etc/ld.so.cache'
}

twin() {
    same locks "$(locks python3)" locked
    cp /bin/sh "$TMPDIR/honest"
    printf '#!/bin/sh\necho fine\n' > "$TMPDIR/honest"
    same 'a script of its own' "$("$TMPDIR/honest")" fine
}

finish
