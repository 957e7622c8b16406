"""An interpreter that has imported the slow libraries already: programs that tests start begin at once.

One server process imports them, and nothing of the package, which every workspace has its own copy of. It forks for
each program, with the arguments, folder, environment and streams of the small script that stands for the interpreter;
that script passes signals on and ends as the program does.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

SERVER = """
import atexit, contextlib, gc, inspect, json, os, runpy, select, signal, socket, sys, threading

listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1] + ".new")
listener.listen(64)
for name in sys.argv[2:]:
    with contextlib.suppress(ModuleNotFoundError):  # of an environment that is to do without
        __import__(name)
getmodule = inspect.getmodule

def module_of(found, filename=None):
    # Otherwise every class with documented fields looks through thousands of modules for the one that defines it.
    module = sys.modules.get(found.f_globals.get("__name__")) if inspect.isframe(found) else None
    return module if module and vars(module) is found.f_globals else getmodule(found, filename)

inspect.getmodule = module_of
gc.freeze()  # a collection would copy the memory of every object
os.rename(sys.argv[1] + ".new", sys.argv[1])

def run(folder, environment, python, arguments):
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if arguments[:2] == ["-m", "snakemake"]:
        sys.executable = python  # for its jobs
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(":") if path]
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path[0] = ""
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = folder
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")

def serve(connection):
    message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    if (program := os.fork()) == 0:
        connection.close()
        for stream, target in zip(streams, (0, 1, 2)):
            os.dup2(stream, target)
            os.close(stream)
        code = 1
        try:
            run(*json.loads(message))
            code = 0
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else int(done.code is not None)
            if code and not isinstance(done.code, int):
                print(done.code, file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        # Not by return: taking the libraries apart, page by page of the copied memory, takes two seconds.
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    for stream in streams:
        os.close(stream)
    connection.send(str(program).encode())
    connection.send(str(os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])).encode())
    os._exit(0)

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
while select.select([listener, sys.stdin], [], [])[0] == [listener]:  # until standard input ends, with the tests
    connection, _ = listener.accept()
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        serve(connection)
    connection.close()
"""

CLIENT = """#!{client} -IS
import json, os, signal, socket, sys

arguments = sys.argv[1:]
if arguments[:1] == ["-u"]:  # as torchrun starts programs; their output is read when they have ended
    del arguments[0]
if not arguments or not (arguments[0] in ("-m", "-c") or arguments[0].endswith(".py")):
    os.execv({python!r}, [{python!r}, *arguments])
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect({address!r})
request = json.dumps([os.getcwd(), dict(os.environ), os.path.abspath(__file__), arguments])
socket.send_fds(server, [request.encode()], [0, 1, 2])
program = int(server.recv(64))
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(program, number))
code = server.recv(64)
if not code:
    sys.exit("the preloaded interpreter is gone")
if int(code) < 0:
    if -int(code) != signal.SIGKILL:
        signal.signal(-int(code), signal.SIG_DFL)
    os.kill(os.getpid(), -int(code))
os._exit(int(code))
"""


# Those that read no environment variable of the hub as they are imported.
APART_FROM_THE_HUB = (
    "torch", "torch.utils.data", "pandas", "pyarrow.parquet", "pyarrow.dataset", "safetensors.torch", "scipy.stats",
    "scipy.linalg", "faiss", "matplotlib.pyplot", "jinja2", "pydantic", "regex", "tqdm", "yaml", "tokenizers", "httpx",
)  # fmt: skip
# With a tokenizer and a model class, which transformers imports when they are asked for.
LIBRARIES = (
    *APART_FROM_THE_HUB, "snakemake.cli", "snakemake.shell", "datasets", "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
    "transformers.tokenization_utils_tokenizers",
)  # fmt: skip

_servers: list[subprocess.Popen[bytes]] = []  # each ends when its standard input does, with the tests


@cache
def preloaded_python(interpreter: str = sys.executable, libraries: tuple[str, ...] = LIBRARIES) -> Path:
    """The script that stands for an interpreter with these libraries: it takes what ``python`` takes."""
    folder = Path(tempfile.mkdtemp(prefix="preloaded-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address, script = folder / "address", folder / "python"
    script.write_text(CLIENT.format(client=sys.executable, python=interpreter, address=str(address)))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}
    environment.pop("PYTHONPATH", None)
    command = [interpreter, "-c", SERVER, str(address), *libraries]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    _servers.append(server)
    while not address.exists():
        assert server.poll() is None, f"{interpreter} can't be preloaded"
        time.sleep(0.05)
    return script
