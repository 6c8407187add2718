# SPDX-License-Identifier: MIT
"""The distribution's kernel, unpacked from its package without installing it."""
import glob
import os
import re
import shutil
import subprocess
import tempfile

# The package that names the current kernel: Debian's small one for virtual machines, Debian's, Ubuntu's.
META = ("linux-image-cloud-amd64", "linux-image-amd64", "linux-image-virtual")


def _package():
    for meta in META:
        shown = subprocess.run(["apt-cache", "depends", meta], capture_output=True, text=True, check=False).stdout
        found = re.search(r"Depends: (linux-image-\d\S+)", shown)
        if found:
            return found.group(1)
    return None


def kernel(build):
    """Path of vmlinuz under the folder build; fetched once."""
    out = os.path.join(build, "debian", "vmlinuz")
    if os.path.exists(out):
        return out
    package = _package()
    if not package:
        refresh = ["apt-get", "update", "-q"]
        subprocess.run(refresh if os.getuid() == 0 else ["sudo"] + refresh, check=False)
        package = _package()
    if not package:
        raise SystemExit("cleave: apt knows none of " + ", ".join(META) + ": give a guests.conf with a kernel of yours")
    print("cleave: fetching", package, "(unpacked under build, not installed)", flush=True)
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(out)) as tmp:
        get = subprocess.run(["apt-get", "-q", "-o", "APT::Sandbox::User=", "download", package], cwd=tmp,
                             capture_output=True, text=True, check=False)
        debs = glob.glob(os.path.join(tmp, "*.deb"))
        if get.returncode or not debs:
            raise SystemExit("cleave: cannot download %s:\n%s" % (package, get.stderr))
        subprocess.run(["dpkg-deb", "-x", debs[0], os.path.join(tmp, "x")], check=True)
        found = glob.glob(os.path.join(tmp, "x", "boot", "vmlinuz-*"))
        shutil.move(found[0], out + ".part")
    os.rename(out + ".part", out)
    return out
