"""Section 3.1: ways around the import allowlist.

The allowlist is a policy. So most of these walk around it, and what they must not get to is what lies behind: files.
The image has no shell and no ``cat``; where the corpus starts one, these start the runner's Python.
"""

from __future__ import annotations

from tests.attacks.case import Case, Control, Layer, case, no_control, reads
from tests.attacks.target import Attack
from tests.endings import OK

READ = "{o}.read({o}.open('{C}', 0), 99)"
SPAWN = """
import random
os = random._os
pid = os.posix_spawn(os.sys.executable, [os.sys.executable, "-I", "-S", "-c", "print(open('{C}').read())"], {})
os.waitpid(pid, 0)
"""
EVIL = "open('evil.py', 'w').write('x = 1')\nimport statistics\nstatistics.sys.path.insert(0, '.')\n"
ZIPPED = """
import sys, zipfile
with zipfile.ZipFile('evil.zip', 'w') as made:
    made.writestr('evilm.py', "data = open('{C}').read()")
sys.path.insert(0, 'evil.zip')
exec('import evilm; print(evilm.data)')
"""
FIND_SYS = "import statistics\nsys = statistics.sys\n"
# What an interpreter that starts would run by itself. Planted where it starts and where temporary files go.
PLANT = """
planted = "open('/tmp/ran', 'w').close()"
for folder in ('.', '/tmp'):
    for name in ('sitecustomize.py', 'usercustomize.py', 'startup.py'):
        open(f'{folder}/{name}', 'w').write(planted)
    open(f'{folder}/x.pth', 'w').write('import sitecustomize')
import random
random._os.environ.update(PYTHONPATH='.', PYTHONSTARTUP='startup.py', PYTHONHOME='/tmp')
"""
CRASH = "import random\nrandom._os.abort()"
HAS_RUN = "import random\nprint({R} if random._os.path.exists('/tmp/ran') else 'it has not run')"


def _by(name: str) -> str:
    return READ.replace("{o}", name)


def nothing_ran(attack: Attack) -> None:
    """A denied import is found before anything of the action runs."""
    if attack.cell.policy:
        assert "begun" not in attack.text


def _plain_imports() -> list[Case]:
    begun = "print('be' + 'gun')\n"
    return [
        case(
            "IMP-01",
            "a plain import of what is not listed",
            f"{begun}import os\nprint({{R}})",
            held_by=Layer.POLICY,
            denied=True,
            check=nothing_ran,
            note="a module's name is no breach: what can be done with it is held by the other layers",
        ),
        case(
            "IMP-01b",
            "an import of several modules that are not listed",
            f"{begun}import socket, subprocess\nprint({{R}})",
            held_by=Layer.POLICY,
            denied=True,
            check=nothing_ran,
            note="as IMP-01",
        ),
        case(
            "IMP-02",
            "__import__ by hand lists the root folder",
            "print({R} if 'opt' in __import__('os').listdir('/') else '')",
            held_by=Layer.LANDLOCK,
            denied=True,
            says="PermissionError",
        ),
        *reads("IMP-04", "sys.modules reads", f"import sys\nos = sys.modules['os']\n{_by('os')}", denied=True),
        *reads("IMP-04b", "__import__ reads", f"os = __import__('os')\n{_by('os')}", denied=True),
        case(
            "IMP-10",
            "modules that an allowed one holds give a process id",
            "import statistics\nprint({R} if statistics.sys.modules['posix'].getpid() else '')",
            held_by=Layer.NOTHING,
            note="names may be reached, and a process may know its own id; in its own namespace it tells nothing",
        ),
        case(
            "IMP-19b",
            "a submodule comes with its package",
            "from numpy import testing\nprint({R})",
            held_by=Layer.POLICY,
            denied=True,
            note="a rule for a package does not allow its submodules; the files are those of a granted package",
        ),
    ]


def _leaks() -> list[Case]:
    """Modules that an allowed one has imported for itself."""
    return [
        *reads("IMP-05", "random's own os reads", f"import random\nos = random._os\n{_by('os')}"),
        *reads("IMP-05b", "a Python that random's own os starts reads", SPAWN),
        *reads("IMP-07", "queue's threading's os reads", f"import queue\nos = queue.threading._os\n{_by('os')}"),
        *reads("IMP-08", "json's codecs reads", "import json\njson.codecs.open('{C}').read()"),
        *reads(
            "IMP-11", "a loader's posix reads", f"import time\np = time.__loader__.load_module('posix')\n{_by('p')}"
        ),
        *reads(
            "IMP-13",
            "the import system's file loader reads",
            "F = [c for c in object.__subclasses__() if c.__name__ == 'FileLoader'][0]\nF('x', '{C}').get_data('{C}')",
        ),
        *reads(
            "IMP-19",
            "a module imported from a package that holds it reads",
            "from json import codecs\ncodecs.open('{C}').read()",
            denied=True,
        ),
        *reads(
            "IMP-22",
            "pkgutil's names read",
            f"import pkgutil\nopen_ = pkgutil.resolve_name('os:open')\nos = open_.__self__\n{_by('os')}",
            denied=True,
        ),
        *reads("IMP-22b", "pydoc's names read", "import pydoc\npydoc.locate('io.open')('{C}').read()", denied=True),
        *reads(
            "IMP-23",
            "a logging configuration that names a function reads",
            "import logging.config\nmake = logging.config.DictConfigurator({'version': 1}).configure_custom\n"
            "make({'()': 'io.open', 'file': '{C}'}).read()",
            denied=True,
        ),
        *reads(
            "IMP-28",
            "a type hint that is evaluated reads",
            "import typing\nclass A: x: 'print(open(\"{C}\").read())'\ntyping.get_type_hints(A)",
        ),
        *reads(
            "IMP-28b",
            "a method that dataclasses makes from text reads",
            "import dataclasses\nclass A: pass\nbuilder = dataclasses._FuncBuilder(globals())\n"
            "builder.add_fn('read', ['self'], ['  return open(\"{C}\").read()'])\n"
            "builder.add_fns_to_class(A)\nA().read()",
        ),
        *reads("IMP-29", "numpy.fromfile reads", "import numpy\nbytes(numpy.fromfile('{C}', 'u1'))"),
        *reads("IMP-29b", "numpy.memmap reads", "import numpy\nbytes(numpy.memmap('{C}', mode='r'))"),
        *reads("IMP-29c", "numpy's own os reads", f"import numpy\nos = numpy.lib._npyio_impl.os\n{_by('os')}"),
    ]


def _machinery() -> list[Case]:
    """What turns the import system itself round."""
    return [
        *reads(
            "IMP-14",
            "an import system without its finders reads",
            f"{FIND_SYS}sys.meta_path.clear()\nos = sys.modules['_frozen_importlib']._gcd_import('os')\n{_by('os')}",
        ),
        case(
            "IMP-16",
            "a module of the code's own making is imported",
            f"{EVIL}exec('import evil')\nprint({{R}} if evil.x == 1 else '')",
            held_by=Layer.POLICY,
            denied=True,
            note="it can do nothing that the action itself could not",
        ),
        *reads("IMP-17", "a module from a zip file on the path reads", ZIPPED, denied=True),
        *reads("IMP-20", "an import under a name that folds to another reads", "import ᵒs\n" + _by("ᵒs"), denied=True),
        case(
            "IMP-20b",
            "an invisible character in a module's name hides it",
            "import o\u200bs\nprint({R})",
            held_by=Layer.RUNNER,
            says="SyntaxError",
            control=no_control("it is no Python anywhere; what is shown is that it is told as a SyntaxError"),
        ),
        case(
            "IMP-25",
            "files that an interpreter runs when it starts are run when one has crashed",
            PLANT,
            CRASH,
            HAS_RUN,
            held_by=Layer.RUNNER,
            endings=(OK,),
            says="it has not run",
            control=_starts_as_anybody_would(),
        ),
        case(
            "IMP-26",
            "pip installs something",
            "import pip\npip.main(['install', 'x'])\nprint({R})",
            held_by=Layer.RUNNER,
            says="No module named 'pip'",
            control=no_control("pip is in no image of ours; tests/docker/test_image.py looks at every file"),
        ),
        *(
            case(
                f"IMP-26{letter}",
                f"a notebook's command runs: {text}",
                f"{text}\nprint({{R}})",
                held_by=Layer.RUNNER,
                says="SyntaxError",
                control=no_control("it is no Python; only a notebook's kernel would run it"),
            )
            for letter, text in (("b", "!pip install x"), ("c", "%system id"))
        ),
    ]


def _starts_as_anybody_would() -> Control:
    run = (
        "import os, subprocess, sys\nopen('sitecustomize.py', 'w').write(\"open('ran', 'w').close()\")\n"
        "subprocess.run([sys.executable, '-c', ''], env={'PYTHONPATH': os.getcwd()})\n"
        "print({R} if os.path.exists('ran') else '')"
    )
    return Control(steps=(run,), reason="there it is the next Python that starts, as anybody would start it")


def _visibility() -> list[Case]:
    """The part of the allowlist that the kernel enforces: packages that are not on it are not there."""
    site = "/opt/py/site-packages"
    return [
        case(
            "IMP-30",
            "a package that is not on the list is loaded",
            "import pandas\nprint({R})",
            held_by=Layer.LANDLOCK,
            denied=True,
        ),
        case(
            "IMP-30b",
            "the source of a package that is not on the list is read",
            f"print({{R}} if 'pandas' in open('{site}/pandas/__init__.py').read() else '')",
            held_by=Layer.LANDLOCK,
            says="PermissionError",
        ),
    ]


CASES = [*_plain_imports(), *_leaks(), *_machinery(), *_visibility()]
