# SPDX-License-Identifier: MIT
"""
System tests: Cleave on a whole emulated machine, read and typed at through its console.

A test asks the fixture `boot` for a machine, waits for text or report lines, and looks at what they say. Time is never
measured: deadlines only end a machine that hangs, and then the test fails with the end of its console.

A test runs on each machine of BOTH, one for each vendor, and its id names it: test_x[intel-bochs-skylake-...]. Another
choice is made by the mark `machines(NAME, ...)`. What a machine cannot do skips the test, with the reason.
"""
import os
import re
import shutil
import socket
import sys
import tempfile
import time

import pexpect
import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tools"))

import bochs  # noqa: E402
import debian  # noqa: E402
import image  # noqa: E402
import initramfs  # noqa: E402
import run  # noqa: E402

BUILD = image.BUILD
CLEAVE = os.path.join(BUILD, "cleave")
HANG = 300  # seconds after which a machine is taken for hung

# name: (emulator, its CPU, how Cleave names the paging there). Bochs' SVM lacks an MSR that all real ones have.
MACHINES = {
    "amd-qemu": ("qemu", "max", "npt"),
    "amd-bochs-ryzen": ("bochs", "ryzen", "npt"),
    "amd-bochs-trinity": ("bochs", "trinity_apu", "npt"),
    "intel-bochs-skylake": ("bochs", "corei7_skylake_x", "ept"),
    "intel-bochs-haswell": ("bochs", "corei7_haswell_4770", "ept"),
    "intel-bochs-sandybridge": ("bochs", "corei7_sandy_bridge_2600k", "ept"),
    "intel-bochs-lynnfield": ("bochs", "corei5_lynnfield_750", "ept"),
    "intel-bochs-penryn": ("bochs", "core2_penryn_t9600", "none"),
    "intel-bochs-prescott": ("bochs", "p4_prescott_celeron_336", "none"),
}
BOTH = ("amd-qemu", "intel-bochs-skylake")
OLDER_INTEL = ("intel-bochs-haswell", "intel-bochs-sandybridge", "intel-bochs-lynnfield")
EVERY = BOTH + OLDER_INTEL + ("amd-bochs-ryzen", "amd-bochs-trinity")
QEMU = pytest.mark.machines("amd-qemu")


def pytest_generate_tests(metafunc):
    if "boot" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("machines")
        metafunc.parametrize("boot", mark.args if mark else BOTH, indirect=True)


def tiny(kind="mb1"):
    return os.path.join(BUILD, "guests", "tiny-%s.elf" % kind)


class Machine:
    """A running emulator with its console and, in QEMU, its monitor."""

    def __init__(self, cmd, folder, paging="npt"):
        self.folder = folder
        self.paging = paging
        self.sockets = tempfile.TemporaryDirectory()  # a socket's path must be short
        self.monitor_path = os.path.join(self.sockets.name, "monitor")
        if cmd[0].startswith("qemu"):
            cmd = cmd + ["-monitor", "unix:%s,server=on,wait=off" % self.monitor_path]
        self.text = ""
        self.child = pexpect.spawn(cmd[0], cmd[1:], cwd=folder, encoding="utf-8", codec_errors="replace", echo=False,
                                   timeout=HANG, maxread=65536)
        self.child.delaybeforesend = None
        self.child.logfile_read = self

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def fail(self, why):
        tail = "\n".join(self.lines()[-40:])
        pytest.fail("%s; the end of the console:\n%s" % (why, tail), pytrace=False)

    def lines(self):
        clean = re.sub(r"\x1b[\[(]?[0-9;?]*[A-Za-z]?", "", self.text)
        return [line.rstrip() for line in re.split(r"[\r\n]+", clean)]

    def wait(self, pattern, seconds=HANG):
        """Waits for text that matches; returns the match."""
        try:
            self.child.expect(pattern, timeout=seconds)
        except pexpect.TIMEOUT:
            self.fail("no '%s' in %d s" % (pattern, seconds))
        except pexpect.EOF:
            self.fail("the machine ended without '%s'" % pattern)
        return self.child.match

    def type(self, line):
        self.child.send(line + "\r")

    def prompt(self):
        self.wait("# \x1b\\[6n")

    def shell(self, line):
        """Types at the shell's next prompt: what comes earlier than that is lost."""
        self.prompt()
        self.type(line)

    def wait_off(self, seconds=HANG):
        """Waits until the machine has switched itself off."""
        try:
            self.child.expect(pexpect.EOF, timeout=seconds)
        except pexpect.TIMEOUT:
            self.fail("the machine is still on after %d s" % seconds)
        self.child.close()
        if self.child.exitstatus or self.child.signalstatus:
            self.fail("the emulator ended with %s" % (self.child.exitstatus or self.child.signalstatus))
        return self

    def reports(self, kind):
        """The report lines `@kind key=value ...` so far, each as a dict. The last key takes the rest of the line."""
        found = []
        for line in self.lines():
            m = re.search(r"(?:^|\s)@%s (.*)$" % kind, line)
            if not m:
                continue
            body, _, detail = m.group(1).partition(" detail=")
            values = dict(w.split("=", 1) for w in body.split() if "=" in w)
            if detail or " detail=" in m.group(1):
                values["detail"] = detail
            found.append(values)
        return found

    def report(self, kind, **want):
        """The one report line of that kind with these values."""
        found = [r for r in self.reports(kind) if all(r.get(k) == v for k, v in want.items())]
        if len(found) != 1:
            self.fail("%d lines @%s with %s, one was expected" % (len(found), kind, want))
        return found[0]

    def still_up(self):
        """Cleave has not panicked and the machine has not reset or ended."""
        if "panic" in self.text.lower() or not self.child.isalive():
            self.fail("Cleave is not up any more")

    def monitor(self, command):
        """QEMU's monitor: the answer to one command."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            for _ in range(100):
                if os.path.exists(self.monitor_path):
                    break
                time.sleep(0.1)  # QEMU is still starting
            s.connect(self.monitor_path)
            self._until_prompt(s)
            s.sendall(command.encode() + b"\n")
            return self._until_prompt(s)

    @staticmethod
    def _until_prompt(s):
        data = b""
        while not data.endswith(b"(qemu) "):
            more = s.recv(65536)
            if not more:
                break
            data += more
        return data.decode(errors="replace")

    def poll(self, what, seconds=HANG):
        """Calls what() until it returns something true, reading the console meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            got = what()
            if got:
                return got
            try:
                self.child.expect("never on any console", timeout=1)
            except pexpect.TIMEOUT:
                pass
            except pexpect.EOF:
                self.fail("the machine ended")
        self.fail("nothing came in %d s" % seconds)
        return None

    def stop(self):
        self.child.close(force=True)
        self.sockets.cleanup()


def put_file(folder, name, content):
    """content: bytes, or the path of a file."""
    to = os.path.join(folder, name)
    os.makedirs(os.path.dirname(to), exist_ok=True)
    if isinstance(content, bytes):
        with open(to, "wb") as f:
            f.write(content)
        return
    try:
        os.link(content, to)
    except OSError:
        shutil.copy(content, to)


def in_bochs(model, drive, com=1, **options):
    """The command that boots the image drive in Bochs. options: of bochs.command()."""
    return bochs.command(drive, model=model, com=com, ignore_bad_msrs=model in bochs.AMD_MODELS, **options)


def in_qemu(default_cpu, com=1, extra=(), **options):
    """The command that boots QEMU. options: of run.qemu()."""
    ports = ["-serial", "null"] * (com - 1) + (["-serial", "stdio"] if com > 1 else [])
    return run.qemu(extra=["-no-reboot", *ports, *extra], **{"cpu": default_cpu, **options})


class Boot:
    """The fixture `boot`."""

    def __init__(self, machine, folder):
        self.emulator, self.cpu, self.paging = MACHINES[machine]
        self.folder = folder
        self.machines = []

    def __call__(self, conf, files=None, via=None, append=None, memory="1G", **options):
        """
        Starts Cleave with this config (None: there is none) and these files ({name: bytes or path}).
        via: "disk" or "iso" (GRUB); "kernel" (QEMU's multiboot loader); None: what is quickest.
        com: the serial port that the console is read from. cpu, vga, extra: of run.qemu(), for QEMU only.
        """
        self._can(via == "kernel", options.get("uefi"))
        folder = self._new_folder()
        files = dict(files or {})
        if conf is not None:
            files = {"guests.conf": conf.encode() if isinstance(conf, str) else conf, **files}
        for name, content in files.items():
            put_file(folder, name, content)
        if via in ("kernel", None) and self.emulator == "qemu":
            return self._start(in_qemu(self.cpu, kernel=CLEAVE, modules=list(files), append=append, memory=memory, **options),
                               folder)
        out = os.path.join(folder, "boot." + ("iso" if via == "iso" else "img"))
        image.pack({name: os.path.join(folder, name) for name in files}, out, cmdline=append or "")
        return self.drive(out, folder, memory=memory, **options)

    def drive(self, path, folder=None, **options):
        """Boots an image that is there already."""
        self._can(False, options.get("uefi"))
        there = in_qemu if self.emulator == "qemu" else in_bochs
        return self._start(there(self.cpu, drive=path, **{"memory": "1G", **options}), folder or self._new_folder())

    def _can(self, kernel, uefi):
        if self.emulator == "bochs" and (kernel or uefi):
            pytest.skip("Bochs has no " + ("UEFI firmware" if uefi else "multiboot loader"))

    def _new_folder(self):
        folder = os.path.join(self.folder, "m%d" % len(self.machines))
        os.makedirs(folder)
        return folder

    def _start(self, cmd, folder):
        self.machines.append(Machine(cmd, folder, self.paging))
        return self.machines[-1]


@pytest.fixture
def boot(request, tmp_path):
    """boot(conf, files, ...) starts a machine of the kind that the test's id names: class Boot."""
    booted = Boot(request.param, str(tmp_path))
    yield booted
    for m in booted.machines:
        m.stop()


@pytest.fixture(scope="session")
def vmlinuz():
    return debian.kernel(BUILD)


@pytest.fixture(scope="session")
def initrd(tmp_path_factory):
    path = tmp_path_factory.mktemp("initrd") / "initrd.img"
    path.write_bytes(initramfs.build())
    return str(path)


def guest(name="g", kernel="tiny", cmdline="", memory="64M", **more):
    """A [guest] section."""
    keys = {"kernel": kernel, "cmdline": cmdline, "memory": memory, **{k.replace("_", "-"): v for k, v in more.items()}}
    return "[guest %s]\n" % name + "".join("%s = %s\n" % kv for kv in keys.items() if kv[1] != "")


def pytest_configure(config):
    config.addinivalue_line("markers", "machines(name, ...): the machines to run on, of MACHINES; else on BOTH")
    config.addinivalue_line("markers", "slow: takes more than about half a minute")
