"""A real Slurm of one's own on loopback: munge, a controller and two nodes of one core, all in one folder.

    python tests/slurm/cluster.py start FOLDER     then SLURM_CONF=FOLDER/slurm.conf squeue
    python tests/slurm/cluster.py stop FOLDER

Exit code 77: it cannot be had here, and why. No accounting, no cgroups: status comes from squeue.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

NODES = ("node1", "node2")
MARK = "POSEBOOK_SLURM"  # in the environment of everything that is started here: what stop() may end
# cred_expire: a job of a node that was lost waits that many seconds before it starts again (else 120).
# SlurmdTimeout: a node that is silent for so many seconds is lost, and its jobs are queued again.
# RealMemory and config_overrides: jobs may ask for what the profile says, whatever this machine has.
CONF = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SlurmdTimeout=10
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
"""


def missing() -> str | None:
    """Why there can be no Slurm here, or None."""
    if os.geteuid() != 0:
        return "Slurm's daemons run as root"
    absent = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if not shutil.which(name)]
    return f"no {', '.join(absent)} (on Debian: apt-get install slurm-wlm munge)" if absent else None


def environment(folder: Path, node: str | None = None) -> dict[str, str]:
    """The variables with which Slurm's commands, or a node's daemon, find this cluster."""
    added = {MARK: str(folder), "SLURM_CONF": f"{folder}/slurm.conf"}
    added |= {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
    return os.environ | added | ({"SLURMD_NODENAME": node} if node else {})


def processes(folder: Path, node: str, word: str = "") -> set[int]:
    """Every process of a node with a word in its command: its daemon, its steps, and the jobs' own."""
    wanted, found = {f"{MARK}={folder}".encode(), f"SLURMD_NODENAME={node}".encode()}, set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is not to be looked at
            if wanted <= set((path / "environ").read_bytes().split(b"\0")):
                parent = path.with_name((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
                # A step writes its title over its own environment, and is known by what it runs.
                step = (parent / "comm").read_text() == "slurmstepd\n"
                found |= {one for one in (path, parent) if one is path or step}
    commands = {}
    for path in found:
        with contextlib.suppress(OSError):
            commands[int(path.name)] = (path / "cmdline").read_bytes()
    return {pid for pid, command in commands.items() if word.encode() in command}


def start_node(folder: Path, node: str) -> None:
    """Start a node's daemon."""
    subprocess.run(["slurmd", "-N", node], env=environment(folder, node), check=True)


def kill(pids: set[int]) -> None:
    """End processes at once: all stand still before the first ends, so that none tells of another's end."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def kill_node(folder: Path, node: str) -> None:
    """What a power cut does to a node: everything on it ends at once, unheard."""
    while alive := processes(folder, node):  # again, for what was being started meanwhile
        kill(alive)
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(folder: Path) -> None:
    """Start everything below a folder with a short path (sockets); returns when both nodes take jobs."""
    for name in ("state", "bin"):
        (folder / name).mkdir(parents=True)
    host, (port, *ports) = socket.gethostname().split(".")[0], _free_ports(1 + len(NODES))
    conf = CONF.format(folder=folder, host=host, port=port)
    for node, own in zip(NODES, ports, strict=True):
        (folder / f"spool-{node}").mkdir()
        conf += f"NodeName={node} NodeAddr=127.0.0.1 NodeHostname={host} Port={own} CPUs=1 RealMemory=64000\n"
    conf += f"PartitionName=main Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP\n"
    (folder / "slurm.conf").write_text(conf)
    # Snakemake's plugin clears SLURM_CONF before it calls srun in a job.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munged = ["munged", "--force", *(f"--{flag}={folder}/munge.{end}" for flag, end in files.items())]
    for daemon in (munged, ["slurmctld"]):
        subprocess.run(daemon, env=environment(folder, "head"), check=True)
    for node in NODES:
        start_node(folder, node)
    until = time.monotonic() + 30
    while states(folder) != dict.fromkeys(NODES, "idle"):
        if time.monotonic() > until:
            raise TimeoutError(f"the nodes are {states(folder)}; see {folder}/*.log")
        time.sleep(0.2)


def states(folder: Path) -> dict[str, str]:
    """Each node's state, as sinfo says it."""
    said = subprocess.run(["sinfo", "-hNo", "%N %t"], env=environment(folder), capture_output=True, text=True)
    return dict(line.split() for line in said.stdout.splitlines())


def stop(folder: Path) -> None:
    """End every process of the cluster, jobs included; the folder stays."""
    for node in (*NODES, "head"):
        kill_node(folder, node)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("do", choices=["start", "stop"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if why := missing():
        print(why, file=sys.stderr)
        sys.exit(77)
    {"start": start, "stop": stop}[arguments.do](arguments.folder.absolute())
