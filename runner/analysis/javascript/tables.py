"""What functions of Node, Deno and Bun do with their arguments, by their full name.

A row is a name and `KIND:INDEX`; `shell`, `argv` (a program, and a list of arguments behind it),
`list` (one list of words), `words` (each argument is a word), `read`, `write`, `delete`, `url`,
`host`, `endpoint` (port and host, or an object that names them), `code`, and kinds that only name a
construct: `listen`, `signal`, `native`.
"""

from __future__ import annotations

_ROWS = """
child_process.exec shell:0
child_process.execSync shell:0
child_process.execFile argv:0
child_process.execFileSync argv:0
child_process.spawn argv:0
child_process.spawnSync argv:0
child_process.fork fork:0
cross-spawn argv:0
cross-spawn.sync argv:0
cross-spawn.spawn argv:0
execa argv:0
execa.execa argv:0
execa.execaSync argv:0
execa.execaCommand shell:0
execa.execaCommandSync shell:0
shelljs.exec shell:0
node-pty.spawn argv:0
Bun.spawn list:0
Bun.spawnSync list:0
Bun.$ shell:0
zx.$ shell:0
bun.$ shell:0
execa.$ shell:0
Deno.Command deno:0
Deno.run list:0
worker_threads.Worker worker:0

fs.unlink delete:0
fs.rm delete:0
fs.rmdir delete:0
fs.rename delete:0 write:1
fs.writeFile write:0
fs.appendFile write:0
fs.createWriteStream write:0
fs.copyFile read:0 write:1
fs.cp read:0 write:1
fs.mkdir write:0
fs.truncate write:0
fs.chmod write:0
fs.chown write:0
fs.lchown write:0
fs.utimes write:0
fs.symlink write:1
fs.link read:0 write:1
fs.readFile read:0
fs.readdir read:0
fs.createReadStream read:0
fs.readlink read:0
fs.opendir read:0
fs.open open:0
fs.remove delete:0
fs.emptyDir delete:0
fs.outputFile write:0
fs.outputJson write:0
fs.writeJson write:0
fs.move delete:0 write:1
fs.copy read:0 write:1
rimraf delete:0
rimraf.sync delete:0
rimraf.rimraf delete:0
del delete:0
del.sync delete:0
Deno.remove delete:0
Deno.writeTextFile write:0
Deno.writeFile write:0
Deno.create write:0
Deno.mkdir write:0
Deno.rename delete:0 write:1
Deno.copyFile read:0 write:1
Deno.chmod write:0
Deno.symlink write:1
Deno.truncate write:0
Deno.readTextFile read:0
Deno.readFile read:0
Deno.readDir read:0
Deno.open open:0
Bun.write write:0
Bun.file read:0

net.connect endpoint:0
net.createConnection endpoint:0
tls.connect endpoint:0
net.Socket().connect endpoint:0
http2.connect url:0
http.get url:0
http.request url:0
https.get url:0
https.request url:0
fetch url:0
undici.fetch url:0
undici.request url:0
node-fetch url:0
axios url:0
axios.get url:0
axios.post url:0
axios.put url:0
axios.delete url:0
axios.request url:0
got url:0
got.get url:0
got.post url:0
request url:0
request.get url:0
request.post url:0
superagent.get url:0
superagent.post url:0
needle.get url:0
ws url:0
WebSocket url:0
EventSource url:0
socket.io-client url:0
navigator.sendBeacon url:0
XMLHttpRequest().open url:1
dns.lookup host:0
dns.resolve host:0
dns.resolve4 host:0
dns.resolve6 host:0
dns.resolveTxt host:0
Deno.connect endpoint:0
Deno.connectTls endpoint:0
Deno.resolveDns host:0
Bun.connect endpoint:0
dgram.createSocket().send host:-1
net.createServer listen
http.createServer listen
https.createServer listen
Deno.listen listen
Deno.serve listen
Bun.serve listen
Bun.listen listen

eval code:0
Function code:-1
vm.runInThisContext code:0
vm.runInNewContext code:0
vm.runInContext code:0
vm.Script code:0
vm.compileFunction code:0
process.kill signal
Deno.kill signal
process.dlopen native
process.binding native
process._linkedBinding native
Deno.dlopen native
bun:ffi.dlopen native
ffi-napi.Library native
"""


def _rows() -> dict[str, tuple[tuple[str, int], ...]]:
    table = {}
    for line in _ROWS.splitlines():
        name, *columns = line.split() or [""]
        uses = [column.partition(":") for column in columns]
        if name:
            table[name] = tuple((kind, int(index or 0)) for kind, _, index in uses)
    return table


CALLS = _rows()
STARTS_PROCESSES = frozenset(
    name for name, uses in CALLS.items()
    if uses[0][0] in ("shell", "argv", "list", "fork", "deno")
)  # fmt: skip
SAME_MODULES = {
    "fs/promises": "fs", "fs.promises": "fs", "fs-extra": "fs", "graceful-fs": "fs",
    "dns/promises": "dns", "dns.promises": "dns", "timers/promises": "timers",
    "child-process-promise": "child_process", "child_process.promises": "child_process",
}  # fmt: skip
"""Modules with the functions of another."""
GLOBALS = ("globalThis.", "global.", "window.", "self.")
