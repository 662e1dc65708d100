"""A real Slurm of one node for the tests: munged, slurmctld and slurmd with files and ports of their own."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd")
SBIN = "/usr/sbin:/usr/local/sbin:/sbin"

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
# A job that is put back waits for the lifetime of a credential before it starts again.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=2,sched_min_interval=0
ReturnToService=2
KillWait=5
MinJobAge=3600
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no Slurm can be started here, in a sentence; None where it can."""
    if os.geteuid() != 0:
        return "Slurm's daemons can be started by root alone"
    absent = [name for name in (*DAEMONS, "sbatch") if _program(name) is None]
    return f"{', '.join(absent)} not installed (Debian: slurm-wlm)" if absent else None


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """A running cluster; yields the variables that Slurm's commands need to find it, and takes it down at the end."""
    if reason := why_not():
        pytest.skip(reason)
    ports = _free_ports(2)
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(mode=0o700)
    folder.chmod(0o755)  # munge refuses a socket in a folder that others cannot enter
    configuration = folder / "slurm.conf"
    values = {"host": host, "controller_port": ports[0], "node_port": ports[1], "folder": folder}
    configuration.write_text(CONFIGURATION.format(**values))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    started: list[subprocess.Popen] = []
    with _resolvable(host):
        try:
            munge = [f"--{n}={folder}/munge.{n.split('-')[0]}" for n in ("socket", "pid-file", "log-file", "seed-file")]
            started.append(_start("munged", ["--foreground", "--force", f"--key-file={key}", *munge], environment))
            _until(lambda: (folder / "munge.socket").exists(), "munged's socket", folder)
            started.append(_start("slurmctld", ["-D", "-f", str(configuration)], environment))
            started.append(_start("slurmd", ["-D", "-f", str(configuration), "-N", host], environment))
            _until(lambda: _idle(environment), "an idle node", folder)
            yield {"SLURM_CONF": str(configuration)}
        finally:
            _stop_jobs(environment)
            for process in reversed(started):
                process.terminate()
            for process in reversed(started):
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}")


def _start(name: str, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([_program(name), *arguments], env=environment, **quiet, start_new_session=True)


def _idle(environment: dict[str, str]) -> bool:
    done = subprocess.run(["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True)
    return done.stdout.strip() == "idle"


def _until(condition, what: str, folder: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = "\n".join(f"--- {p.name}\n{p.read_text()[-2000:]}" for p in folder.glob("*.log"))
            pytest.fail(f"Slurm did not start: no {what} within {seconds} s\n{logs}")
        time.sleep(0.1)


def _stop_jobs(environment: dict[str, str]) -> None:
    """End every job, and wait until its processes are gone: a daemon that is stopped leaves them behind."""
    subprocess.run(["scancel", "--full", "--signal=KILL", "--user=root"], env=environment, capture_output=True)
    subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True)
    for _ in range(100):
        left = subprocess.run(["squeue", "--noheader"], env=environment, capture_output=True, text=True)
        if left.returncode or not left.stdout.strip():
            return
        time.sleep(0.1)


@contextlib.contextmanager
def _resolvable(host: str) -> Iterator[None]:
    """The name of this machine has an address, as Slurm asks; where it has none, /etc/hosts gets a line for the time."""
    try:
        socket.gethostbyname(host)
        yield
        return
    except OSError:
        pass
    hosts = Path("/etc/hosts")
    line = f"127.0.0.1 {host}  # for the tests' Slurm\n"
    hosts.write_text(hosts.read_text() + line)
    try:
        yield
    finally:
        hosts.write_text(hosts.read_text().replace(line, ""))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()
