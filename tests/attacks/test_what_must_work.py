"""What a sandbox is for still works under all of it: numbers, tables, pictures, threads, asyncio, a database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator import Config, Sandbox

pytestmark = pytest.mark.docker

SECONDS = 60.0  # for one step: the first import of a large package reads it from a cold disk
IMPORTS = ["numpy.*", "pandas.*", "matplotlib.*", "asyncio", "threading", "concurrent.*", "sqlite3", "subprocess", "os"]
IMPORTS += ["sys", "tempfile", "io", "csv", "zlib", "gzip", "zipfile", "pathlib", "logging", "select", "socket", "ssl"]

WORKS = {
    "numpy": (
        "import numpy as np\na = np.arange(9.0).reshape(3, 3)\n"
        "round(float(np.linalg.norm(a @ a.T)), 3), np.fft.fft(a).shape",
        (202.406, (3, 3)),
    ),
    "numpy with many threads asked for": (
        "import numpy as np\nones = np.ones((400, 400))\nfloat((ones @ ones)[0, 0])",
        400.0,
    ),
    "numpy files": (
        "import numpy as np\nnp.save('a.npy', np.arange(5))\n"
        "int(np.load('a.npy').sum()), int(np.load('a.npy', mmap_mode='r')[2])",
        (10, 2),
    ),
    "pandas": (
        "import pandas as pd\nt = pd.DataFrame({'k': list('aab'), 'v': [1, 2, 3]})\nt.to_csv('t.csv', index=False)\n"
        "int(pd.read_csv('t.csv').groupby('k').v.sum()['a'])",
        3,
    ),
    "pandas dates": (
        "import pandas as pd\nstr(pd.date_range('2024-02-28', periods=3, tz='Europe/Berlin')[2].date())",
        "2024-03-01",
    ),
    "matplotlib": (
        "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nplt.figure()\nplt.plot([1, 2, 3])\n"
        "plt.title('x')\nplt.savefig('p.png')\nplt.close()\nopen('p.png', 'rb').read(4)",
        b"\x89PNG",
    ),
    "matplotlib as a drawing of lines": (
        "import io, matplotlib.pyplot as plt\nplt.plot([1, 2])\nmade = io.BytesIO()\nplt.savefig(made, format='svg')\n"
        "plt.close()\nb'<svg' in made.getvalue()",
        True,
    ),
    "threads": (
        "import threading\nfound = []\nts = [threading.Thread(target=found.append, args=(i,)) for i in range(8)]\n"
        "for t in ts: t.start()\nfor t in ts: t.join()\nsorted(found)",
        list(range(8)),
    ),
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: r = list(pool.map(abs, range(-4, 0)))\nr",
        [4, 3, 2, 1],
    ),
    "asyncio": (
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x\nawait asyncio.gather(f(1), f(2))",
        [1, 2],
    ),
    "asyncio with threads": ("import asyncio\nawait asyncio.to_thread(sum, [1, 2])", 3),
    "asyncio timeouts": (
        "import asyncio\ntry:\n    async with asyncio.timeout(0.01): await asyncio.sleep(9)\n"
        "except TimeoutError: r = 'ended'\nr",
        "ended",
    ),
    "a database in a file": (
        "import sqlite3\nwith sqlite3.connect('d.db') as d:\n    d.execute('create table t (x)')\n"
        "    d.executemany('insert into t values (?)', [(1,), (2,)])\nd.execute('select sum(x) from t').fetchone()[0]",
        3,
    ),
    "a database in memory": ("import sqlite3\nsqlite3.connect(':memory:').execute('select 6 * 7').fetchone()[0]", 42),
    "compressed files": (
        "import gzip, zipfile\nwith gzip.open('x.gz', 'wb') as f: f.write(b'x' * 1000)\n"
        "with zipfile.ZipFile('x.zip', 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('a', 'b' * 1000)\n"
        "len(gzip.open('x.gz').read()), len(zipfile.ZipFile('x.zip').read('a'))",
        (1000, 1000),
    ),
    "temporary files": (
        "import os, tempfile\nwith tempfile.NamedTemporaryFile() as f:\n"
        "    f.write(b'x'); f.flush(); size = os.path.getsize(f.name)\nsize",
        1,
    ),
    "folders": (
        "import pathlib\np = pathlib.Path('a/b')\np.mkdir(parents=True)\n(p / 'c.txt').write_text('x')\n"
        "(p / 'c.txt').rename('a/d.txt')\n[str(f) for f in sorted(pathlib.Path('a').rglob('*'))]",
        ["a/b", "a/d.txt"],
    ),
    "a pair of sockets": ("import socket\na, b = socket.socketpair()\na.send(b'x')\nb.recv(1)", b"x"),
    "another process of its own": (
        "import os\nr, w = os.pipe()\nif not (pid := os.fork()):\n    os.write(w, b'child')\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\nos.read(r, 5)",
        b"child",
    ),
    "another Python": (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-I', '-S', '-c', 'print(6 * 7)'], capture_output=True).stdout",
        b"42\n",
    ),
    "zones and dates": (
        "import zoneinfo, datetime\n"
        "str(datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('Asia/Tokyo')).utcoffset())",
        "9:00:00",
    ),
    "random numbers": (
        "import random, secrets, uuid\nlen({random.random(), secrets.randbits(64), uuid.uuid4().int})",
        3,
    ),
    "hashes": ("import hashlib\nhashlib.sha256(b'').hexdigest()[:8]", "e3b0c442"),
    "logging": (
        "import logging, io\nmade = io.StringIO()\nlogging.basicConfig(stream=made, force=True)\n"
        "logging.warning('w')\nmade.getvalue()",
        "WARNING:root:w\n",
    ),
    "decimal and fractions": (
        "import decimal, fractions\nstr(decimal.Decimal(1) / 8), str(fractions.Fraction(3, 6))",
        ("0.125", "1/2"),
    ),
}


@pytest.fixture(scope="module", params=["auto", "off"])
def sandbox(request: pytest.FixtureRequest, config: Config) -> Iterator[Sandbox]:
    with working(config, request.param, env={"OPENBLAS_NUM_THREADS": "2"}) as sandbox:
        yield sandbox


def working(config: Config, landlock: str, env: dict[str, str]) -> Sandbox:
    settings = replace(config, timeout=SECONDS, landlock=landlock)
    return Sandbox(config=settings, authorized_imports=[*IMPORTS, "random", "secrets"], env=env)


@pytest.mark.parametrize("what", WORKS)
def test_it_works(sandbox: Sandbox, what: str) -> None:
    code, expected = WORKS[what]
    execution = sandbox.run_code(code)
    assert execution.ok, execution.error
    assert execution.value == expected, execution


@pytest.mark.parametrize("landlock", ["auto", "off"])
def test_what_works_works_after_a_kill_and_in_a_branch(config: Config, landlock: str) -> None:
    with working(config, landlock, env={}) as sandbox:
        sandbox.run_code("import numpy as np, pandas as pd\ntable = pd.DataFrame({'x': np.arange(4.0)})")
        killed = sandbox.run_code("sum(range(10**12))", timeout=1.0)
        assert killed.state == "restored", killed
        assert sandbox.run_code("float(table.x.sum())").value == 6.0
        with sandbox.fork() as branch:
            assert branch.run_code("float((table.x * 2).sum())").value == 12.0
