#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Bochs without a screen: its COM1 (or --com N) is this program's standard input and output, as QEMU's is with -nographic.

    bochs.py [options] IMAGE     boots a disk image, or an ISO if the name ends in .iso

Three terminals of our own are between Bochs and the user: its controlling one, where the debugger talks; the serial
line; and the screen, which Debian's `term` display draws on a terminal that it opens itself. All are read until the end,
for Bochs stands still when nobody does.

Exit status: 0 the machine was switched off, 2 it was reset, 3 Bochs stopped by itself (the end of its log is printed),
124 it took longer than --limit, 130 ended by Ctrl-A X or a signal.
"""
import argparse
import os
import pty
import re
import select
import signal
import sys
import tempfile
import termios
import time
import tty

import stops

OFF, RESET, STOPPED, LIMIT, ENDED = 0, 2, 3, 124, 130
ROM = "/usr/share/bochs/"
INTEL, INTEL_NO_EPT = "corei7_skylake_x", "core2_penryn_t9600"
AMD_MODELS = "ryzen", "trinity_apu"

# Time stands at one moment of the calendar, and passes as instructions do: runs repeat themselves.
BOCHSRC = """\
config_interface: textconfig
display_library: term
cpu: model={model}, count={pcpus}, ips={ips}, reset_on_triple_fault=1, ignore_bad_msrs={ignore_bad_msrs}
memory: guest={memory}, host={host_memory}
romimage: file={rom}BIOS-bochs-latest, options=fastboot
vgaromimage: file={rom}VGABIOS-lgpl-latest
pci: enabled=1, chipset=i440fx
clock: sync=none, time0=946684800
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: {drive}
boot: {boot}
{serial}
log: log
panic: action=fatal
error: action=report
info: action=report
debug: action=ignore
speaker: enabled=0
sound: driver=dummy
mouse: enabled=0
private_colormap: enabled=0
"""


def command(path, pcpus=1, memory="256M", model=INTEL, **options):
    """The command of this program, as run.qemu() has it for QEMU. options: its own; at: [(place, commands)]."""
    cmd = [sys.executable, os.path.abspath(__file__), "--pcpus", str(pcpus), "--memory", memory, "--model", model]
    for place, commands in options.pop("at", ()):
        cmd += ["--at", place, commands]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        cmd += [flag] if value is True else [flag, str(value)] if value else []
    return cmd + [path]


class Terminal:
    """A pseudo-terminal that passes bytes as they are. Bochs has the file `name`."""

    def __init__(self):
        self.fd, self.other = pty.openpty()
        tty.setraw(self.other)
        self.name = os.ttyname(self.other)


def read(fd):
    try:
        return os.read(fd, 65536)
    except OSError:  # the other side is closed
        return b""


class Bochs:
    """A running Bochs."""

    def __init__(self, a, folder):
        self.folder = folder
        self.serial = Terminal()
        self.screen = None
        self.said = b""  # on its controlling terminal
        self.log_read = 0
        self.log_end = b""
        self.resets = 0
        self.stops = a.at
        self.commands, self.prompts = [], 1
        # Bochs puts a lock file beside the image and leaves it behind when it is killed: that place is this folder.
        name = "boot" + (".iso" if a.image.endswith(".iso") else ".img")
        os.symlink(os.path.abspath(a.image), os.path.join(folder, name))
        kind = "cdrom, status=inserted" if name.endswith(".iso") else "disk, mode=flat"
        serial = "com%d: enabled=1, mode=term, dev=%s" % (a.com, self.serial.name)
        if a.com > 1:
            serial = "com1: enabled=1, mode=null\n" + serial
        with open(os.path.join(folder, "bochsrc"), "w", encoding="ascii") as f:
            f.write(BOCHSRC.format(model=a.model, pcpus=a.pcpus, ips=a.ips, memory=a.memory, host_memory=min(a.memory, 2048),
                                   rom=ROM, drive="type=%s, path=%s" % (kind, name),
                                   boot="cdrom" if name.endswith(".iso") else "disk", serial=serial,
                                   ignore_bad_msrs=int(a.ignore_bad_msrs)))
        with open(os.path.join(folder, "go"), "w", encoding="ascii") as f:
            f.write(stops.script(a.at))
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            os.chdir(folder)
            os.environ.update(TERM="xterm", LINES="25", COLUMNS="80")
            try:
                os.execvp("bochs", ["bochs", "-q", "-f", "bochsrc", "-rc", "go"])
            finally:
                os._exit(127)

    def ended(self):
        if self.pid and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = 0
        return not self.pid

    def listen(self):
        """Reads what is on the terminals but the serial one."""
        self.said = (self.said + read(self.terminal))[-8192:]
        where = self.screen is None and re.search(rb'connected to screen "(\S+)"', self.said)
        if where:
            self.screen = os.open(where[1], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            tty.setraw(self.screen)
        self.answer()

    def answer(self):
        """
        The debugger's next command, when it waits for one: its prompts are numbered. What it says to those of a stop
        goes to standard error. What it does not understand it would pass over, and where it stops without our asking it
        would wait for ever: both end the machine.
        """
        before, prompt, after = self.said.partition(b"<bochs:%d> " % self.prompts)
        if not prompt:
            return
        stop = re.search(rb"\((\d+)\) Breakpoint (\d+), ", before)
        if self.commands:
            show(before.partition(b"\n")[2])
        elif stop:
            self.commands = [b"set $cpu = " + stop[1], *self.stops[int(stop[2]) - 1].commands, b"c"]
        if self.commands and b"error at" not in before:
            command, self.said = self.commands.pop(0), after
        else:
            command = b"q"
        self.prompts += 1
        os.write(self.terminal, command + b"\n")

    def was_reset(self):
        """Reads on in the log. The first reset is the power switch."""
        try:
            with open(os.path.join(self.folder, "log"), "rb") as f:
                f.seek(self.log_read)
                new = f.read()
        except OSError:
            return False
        whole = new[:new.rfind(b"\n") + 1]
        self.log_read += len(whole)
        self.resets += whole.count(b"::Reset(HARDWARE)")
        self.log_end = (self.log_end + whole)[-16384:]
        return self.resets > 1

    def kill(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def verdict(self):
        """Why it has ended by itself."""
        if self.was_reset():
            return RESET
        if re.search(b"soft power off|shutdown requested", self.log_end):
            return OFF
        end = self.log_end.splitlines()[-12:] + self.said[-1000:].splitlines()
        write(b"\r\nbochs stopped:\r\n" + b"\r\n".join(end) + b"\r\n")
        return STOPPED


class Keys:
    """The user's keys: Ctrl-A X ends, Ctrl-A twice is one."""

    def __init__(self):
        self.prefix = False

    def typed(self, data):
        """Returns (what goes to the machine, whether to end)."""
        out = bytearray()
        for c in data:
            if self.prefix and c in b"xX":
                return bytes(out), True
            if c == 1 and not self.prefix:
                self.prefix = True
                continue
            self.prefix = False
            out.append(c)
        return bytes(out), False


def console(b, limit):
    """Passes bytes both ways until the machine ends. Returns the exit status."""
    keys, stdin, pending, look = Keys(), 0, b"", time.monotonic()
    end = look + limit if limit else None
    while True:
        fds = [f for f in (b.serial.fd, b.terminal, b.screen, stdin) if f is not None]
        ready, writable, _ = select.select(fds, [b.serial.fd] if pending else [], [], 0.2)
        now = time.monotonic()
        if b.serial.fd in ready:
            write(read(b.serial.fd))
        if b.terminal in ready:
            b.listen()
        if b.screen in ready and b.screen is not None:
            read(b.screen)
        if stdin in ready and stdin is not None:
            data = read(stdin)
            stdin = stdin if data else None
            data, stop = keys.typed(data)
            pending += data
            if stop:
                return ENDED
        if writable:
            pending = pending[os.write(b.serial.fd, pending[:16]):]
        if b.ended():
            drain(b)
            return b.verdict()
        if now > look:
            look = now + 0.5
            if b.was_reset():
                drain(b)
                return RESET
        if end and now > end:
            return LIMIT


def drain(b):
    while select.select([b.serial.fd], [], [], 0)[0]:
        write(read(b.serial.fd))


def write(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def show(reply):
    """What the debugger says, without the escape sequences of its line editor."""
    sys.stderr.buffer.write(re.sub(rb"\x1b\[\?\d+[hl]", b"", reply).strip(b"\r"))
    sys.stderr.flush()


def stop(_signal, _frame):
    raise KeyboardInterrupt


def megabytes(text):
    size = re.fullmatch(r"(\d+)([MmGg])", text)
    if not size:
        raise argparse.ArgumentTypeError("'%s' is not a size as 512M or 2G" % text)
    return int(size[1]) << (10 if size[2] in "gG" else 0)


def arguments():
    p = argparse.ArgumentParser(prog="bochs.py", description="Boots an image in Bochs with COM1 on the terminal.")
    p.add_argument("image")
    p.add_argument("--model", metavar="MODEL", default=INTEL, help="of the processor: `bochs --help cpu` lists them")
    p.add_argument("--pcpus", type=int, default=1)
    p.add_argument("--memory", type=megabytes, default="256M", help="as 512M or 2G")
    p.add_argument("--com", type=int, default=1, help="the serial port that is the terminal")
    p.add_argument("--ips", type=int, default=50000000, help="instructions in a second of the machine; the TSC's rate")
    p.add_argument("--ignore-bad-msrs", action="store_true", help="Linux on the bare machine needs it")
    p.add_argument("--at", nargs=2, action="append", default=[], metavar=("PLACE", "COMMANDS"),
                   help="has the debugger do that whenever Cleave is there: see stops.py; may be given again")
    p.add_argument("--limit", type=float, help="seconds after which the machine is ended")
    return p.parse_args()


def main():
    a = arguments()
    try:
        a.at = stops.resolve(a.at)
    except stops.StopsError as e:
        sys.exit("bochs.py: %s" % e)
    for s in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(s, stop)
    before = termios.tcgetattr(0) if os.isatty(0) else None
    with tempfile.TemporaryDirectory(prefix="bochs-") as folder:
        b = Bochs(a, folder)
        try:
            if before:
                tty.setraw(0)
            return console(b, a.limit)
        except (KeyboardInterrupt, BrokenPipeError):
            return ENDED
        finally:
            b.kill()
            if before:
                termios.tcsetattr(0, termios.TCSADRAIN, before)


if __name__ == "__main__":
    sys.exit(main())
