"""What functions of Python do with their arguments, by their full name.

A row is a name and what it does: `KIND:INDEX=KEYWORD`, the argument by its place and its name.

shell      text for a shell              argv    a list of words, or one word
words      from here on, each argument is a word
read, write, delete                      a path
url, host  of a connection               address a pair of host and port
listen     an address to listen on       code    Python text that is run
sql        SQL text                      `self`  instead of an index: what the method belongs to
`connect`, `listen`, `signal`, `load` (foreign code), `unpack` (objects that may run code) and
`environment` without an argument only name a construct.
"""

from __future__ import annotations

_ROWS = """
os.system shell:0=command
os.popen shell:0=cmd
subprocess.getoutput shell:0=cmd
subprocess.getstatusoutput shell:0=cmd
commands.getoutput shell:0=cmd
commands.getstatusoutput shell:0=cmd
popen2.popen2 shell:0=cmd
popen2.popen3 shell:0=cmd
platform.popen shell:0=cmd
asyncio.create_subprocess_shell shell:0=cmd
asyncio.subprocess.create_subprocess_shell shell:0=cmd
asyncio.get_event_loop().subprocess_shell shell:1=cmd
asyncio.get_running_loop().subprocess_shell shell:1=cmd
anyio.run_process argv:0=command
trio.run_process argv:0=command
asyncio.create_subprocess_exec words:0=program
asyncio.subprocess.create_subprocess_exec words:0=program
asyncio.get_event_loop().subprocess_exec words:1=program
asyncio.get_running_loop().subprocess_exec words:1=program
pty.spawn argv:0=argv
pexpect.spawn shell:0=command
pexpect.spawnu shell:0=command
pexpect.run shell:0=command
pexpect.runu shell:0=command
invoke.run shell:0=command
invoke.Context().run shell:0=command
fabric.Connection().run shell:0=command
fabric.Connection().local shell:0=command
fabric.Connection().sudo shell:0=command
paramiko.SSHClient().exec_command shell:0=command
delegator.run shell:0=command
envoy.run shell:0=command
get_ipython().system shell:0=cmd
get_ipython().getoutput shell:0=cmd
distutils.spawn.spawn argv:0=cmd
setuptools._distutils.spawn.spawn argv:0=cmd
_posixsubprocess.fork_exec argv:0=args

os.remove delete:0=path
os.unlink delete:0=path
os.rmdir delete:0=path
os.removedirs delete:0=name
shutil.rmtree delete:0=path
os.rename delete:0=src write:1=dst
os.replace delete:0=src write:1=dst
os.renames delete:0=old write:1=new
shutil.move delete:0=src write:1=dst
send2trash.send2trash delete:0=paths
os.mkdir write:0=path
os.makedirs write:0=name
os.truncate write:0=path
os.chmod write:0=path
os.lchmod write:0=path
os.chown write:0=path
os.lchown write:0=path
os.symlink write:1=dst
os.link read:0=src write:1=dst
os.mknod write:0=path
os.mkfifo write:0=path
os.utime write:0=path
os.setxattr write:0=path
os.creat write:0=path
os.chroot read:0=path
shutil.copy read:0=src write:1=dst
shutil.copy2 read:0=src write:1=dst
shutil.copyfile read:0=src write:1=dst
shutil.copytree read:0=src write:1=dst
shutil.copymode read:0=src write:1=dst
shutil.chown write:0=path
shutil.unpack_archive read:0=filename write:1=extract_dir
shutil.make_archive write:0=base_name read:2=root_dir
distutils.dir_util.remove_tree delete:0=directory
pathlib.Path().write_text write:self
pathlib.Path().write_bytes write:self
pathlib.Path().unlink delete:self
pathlib.Path().rmdir delete:self
pathlib.Path().mkdir write:self
pathlib.Path().touch write:self
pathlib.Path().chmod write:self
pathlib.Path().lchmod write:self
pathlib.Path().rename delete:self write:0=target
pathlib.Path().replace delete:self write:0=target
pathlib.Path().symlink_to write:self
pathlib.Path().hardlink_to read:0=target write:self
pathlib.Path().copy read:self write:0=target
pathlib.Path().move delete:self write:0=target
pathlib.Path().read_text read:self
pathlib.Path().read_bytes read:self
pathlib.Path().iterdir read:self
pathlib.Path().glob read:self
pathlib.Path().rglob read:self
pathlib.Path().readlink read:self
os.listdir read:0=path
os.scandir read:0=path
os.walk read:0=top
os.readlink read:0=path
os.stat read:0=path
glob.glob read:0=pathname
glob.iglob read:0=pathname
linecache.getlines read:0=filename
linecache.getline read:0=filename
fileinput.input read:0=files
sqlite3.connect write:0=database
sqlite3.connect().execute sql:0=sql
sqlite3.connect().executescript sql:0=sql_script
sqlite3.connect().executemany sql:0=sql
sqlite3.connect().cursor().execute sql:0=sql
sqlite3.connect().cursor().executescript sql:0=sql_script
sqlite3.connect().cursor().executemany sql:0=sql
psycopg2.connect().cursor().execute sql:0=query
psycopg.connect().execute sql:0=query
psycopg.connect().cursor().execute sql:0=query
pymysql.connect().cursor().execute sql:0=query
MySQLdb.connect().cursor().execute sql:0=query
mysql.connector.connect().cursor().execute sql:0=operation
duckdb.sql sql:0=query
duckdb.execute sql:0=query
duckdb.connect().execute sql:0=query
shelve.open write:0=filename unpack
dbm.open write:0=file
logging.FileHandler write:0=filename
numpy.save write:0=file
numpy.savetxt write:0=fname
zipfile.ZipFile().extractall write:0=path
tarfile.open().extractall write:0=path
urllib.request.urlretrieve url:0=url write:1=filename
wget.download url:0=url write:1=out

urllib.request.urlopen url:0=url
urllib.request.Request url:0=url
urllib2.urlopen url:0=url
urllib2.Request url:0=url
aiohttp.request url:1=url
websocket.create_connection url:0=url
websocket.WebSocketApp url:0=url
websockets.connect url:0=uri
xmlrpc.client.ServerProxy url:0=uri
webbrowser.open url:0=url
urllib3.request url:1=url
urllib3.PoolManager().request url:1=url
urllib3.PoolManager().urlopen url:1=url
git.Repo.clone_from url:0=url write:1=to_path
pymongo.MongoClient url:0=host
socket.gethostbyname host:0=hostname
socket.gethostbyname_ex host:0=hostname
socket.getaddrinfo host:0=host
http.client.HTTPConnection host:0=host
http.client.HTTPSConnection host:0=host
ftplib.FTP host:0=host
ftplib.FTP_TLS host:0=host
ftplib.FTP().connect host:0=host
smtplib.SMTP host:0=host
smtplib.SMTP_SSL host:0=host
smtplib.SMTP().connect host:0=host
telnetlib.Telnet host:0=host
imaplib.IMAP4 host:0=host
imaplib.IMAP4_SSL host:0=host
poplib.POP3 host:0=host
poplib.POP3_SSL host:0=host
paramiko.SSHClient().connect host:0=hostname
fabric.Connection host:0=host
pymysql.connect host:0=host
MySQLdb.connect host:0=host
mysql.connector.connect host:9=host
psycopg2.connect host:9=host
psycopg.connect host:9=host
redis.Redis host:0=host
redis.StrictRedis host:0=host
dns.resolver.resolve host:0=qname
dns.resolver.query host:0=qname
asyncio.open_connection host:0=host
asyncio.get_event_loop().create_connection host:1=host
socket.create_connection address:0=address
socket.socket().connect address:0=address
socket.socket().connect_ex address:0=address
socket.socket().sendto address:-1=address
boto3.client connect
boto3.resource connect
boto3.Session connect
google.cloud.storage.Client connect
socket.socket().bind listen
socket.socket().listen listen
socket.create_server listen
asyncio.start_server listen
http.server.HTTPServer listen
http.server.ThreadingHTTPServer listen
http.server.test listen
socketserver.TCPServer listen
socketserver.ThreadingTCPServer listen
socketserver.UDPServer listen
flask.Flask().run listen
uvicorn.run listen

os.kill signal
os.killpg signal
signal.pthread_kill signal
psutil.Process().kill signal
psutil.Process().terminate signal
psutil.Process().suspend signal
psutil.Process().send_signal signal
ctypes.CDLL load
ctypes.PyDLL load
ctypes.cdll.LoadLibrary load
cffi.FFI().dlopen load
cffi.FFI().verify load
importlib.machinery.ExtensionFileLoader load
pickle.load unpack
pickle.loads unpack
pickle.Unpickler unpack
cPickle.load unpack
cPickle.loads unpack
_pickle.load unpack
_pickle.loads unpack
dill.load unpack
dill.loads unpack
cloudpickle.load unpack
cloudpickle.loads unpack
marshal.load unpack
marshal.loads unpack
jsonpickle.decode unpack
joblib.load unpack
torch.load unpack
yaml.unsafe_load unpack
yaml.full_load unpack
pandas.read_pickle unpack
os.getenv environment
os.putenv environment
os.unsetenv environment

exec code:0
eval code:0
compile code:0=source
timeit.timeit code:0=stmt code:1=setup
timeit.repeat code:0=stmt code:1=setup
cProfile.run code:0=statement
profile.run code:0=statement
pdb.run code:0=statement
code.InteractiveInterpreter().runsource code:0=source
code.InteractiveInterpreter().runcode code:0
code.InteractiveConsole().push code:0=line
code.InteractiveConsole().runsource code:0=source
codeop.compile_command code:0=source
"""

Uses = tuple[tuple[str, int | str, str], ...]
"""Kind, index (or `self`), keyword."""


def _rows() -> dict[str, Uses]:
    table: dict[str, Uses] = {}
    for line in _ROWS.splitlines():
        name, *columns = line.split() or [""]
        uses = []
        for column in columns:
            kind, _, place = column.partition(":")
            index, _, keyword = place.partition("=")
            uses.append((kind, index if index in ("self", "") else int(index), keyword))
        if name:
            table[name] = tuple(uses)
    for module in ("requests", "httpx", "requests.Session()", "requests.session()",
                   "httpx.Client()", "httpx.AsyncClient()", "aiohttp.ClientSession()"):  # fmt: skip
        for verb in ("get", "post", "put", "delete", "head", "patch", "options"):
            table[f"{module}.{verb}"] = (("url", 0, "url"),)
        for verb in ("request", "stream"):
            table[f"{module}.{verb}"] = (("url", 1, "url"),)
    return table


CALLS = _rows()
"""Function -> what it does."""
POPEN = frozenset(
    f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen")
)
"""Functions that take `shell=`, and a list or a text (Python documentation, subprocess)."""
EXEC = {
    "os.execv": (0, 1), "os.execve": (0, 1), "os.execvp": (0, 1), "os.execvpe": (0, 1),
    "os.posix_spawn": (0, 1), "os.posix_spawnp": (0, 1), "os.spawnv": (1, 2), "os.spawnve": (1, 2),
    "os.spawnvp": (1, 2), "os.spawnvpe": (1, 2),
}  # fmt: skip
"""Functions that take a program and a list of arguments, by their places."""
EXEC_FLAT = {
    "os.execl": 0, "os.execle": 0, "os.execlp": 0, "os.execlpe": 0, "os.spawnl": 1,
    "os.spawnle": 1, "os.spawnlp": 1, "os.spawnlpe": 1,
}  # fmt: skip
"""The same with the arguments one by one."""
WITH_ENVIRONMENT = frozenset({"os.execle", "os.execlpe", "os.spawnle", "os.spawnlpe"})
OPENS = {
    "open": 1, "io.open": 1, "os.fdopen": 1, "codecs.open": 1, "gzip.open": 1, "bz2.open": 1,
    "lzma.open": 1, "gzip.GzipFile": 1, "bz2.BZ2File": 1, "os.open": 1, "tarfile.open": 1,
    "tarfile.TarFile": 1, "zipfile.ZipFile": 1, "aiofiles.open": 1, "tokenize.open": 1,
    "posix.open": 1, "wave.open": 1, "h5py.File": 1, "io.FileIO": 1, "_io.open": 1,
    "_io.FileIO": 1,
}  # fmt: skip
"""Functions that open a file, and the place of the mode."""
DEFERRED = {
    "threading.Thread": "target", "threading.Timer": "function", "multiprocessing.Process":
    "target", "multiprocessing.context.Process": "target",
}  # fmt: skip
"""Classes that call the function in this keyword with `args` and `kwargs`."""
APPLIED = {
    "functools.partial": 0, "functools.partialmethod": 0, "atexit.register": 0, "map": 0,
    "filter": 0, "functools.reduce": 0, "itertools.starmap": 0, "asyncio.to_thread": 0,
    "asyncio.run": 0, "contextvars.copy_context().run": 0, "threading.Timer": 1,
    "signal.signal": 1, "_thread.start_new_thread": 0, "thread.start_new_thread": 0,
    "sched.scheduler().enter": 2, "code.interact": 0, "weakref.finalize": 1,
}  # fmt: skip
"""Functions that call the one that they are given at this place with what follows."""
APPLYING_METHODS = frozenset(
    {"submit", "apply", "apply_async", "map", "map_async", "starmap", "imap", "imap_unordered",
     "run_in_executor", "call_soon", "call_later", "call_at", "call_soon_threadsafe",
     "add_done_callback", "callback", "push"}
)  # fmt: skip
STARTS_PROCESSES = (
    frozenset(n for n, uses in CALLS.items() if uses[0][0] in ("shell", "argv", "words"))
    | POPEN | frozenset(EXEC) | frozenset(EXEC_FLAT)
)  # fmt: skip
HOLDS_STARTERS = frozenset(
    {"os", "subprocess", "pty", "ctypes.CDLL()", "asyncio", "builtins", "commands", "__builtins__"}
)
"""Modules of which a name that can't be told may start a process."""
INTROSPECTION = frozenset(
    {"__subclasses__", "__globals__", "__builtins__", "f_globals", "f_builtins", "gi_frame",
     "cr_frame", "tb_frame", "__code__"}
)  # fmt: skip
LIBC_SHELL = frozenset({"system", "popen"})
LIBC_ARGV = frozenset({"execv", "execve", "execvp", "execl", "execlp", "posix_spawn"})
LIBC_DELETE = frozenset({"unlink", "remove", "rmdir"})
