"""A real SLURM of the tests' own: one machine, started by hand in a temporary directory, on free ports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=2
MinJobAge=300
GresTypes=gpu
NodeName={host} CPUs=8 RealMemory=32000 Gres=gpu:2 Feature=a100,h100
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return one.getsockname()[1]


@dataclass
class Slurm:
    """A running cluster of one node with 8 cores and two pretended GPUs; partitions cpu and gpu."""

    home: Path
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.home / "slurm.conf")}

    def start(self, name: str, *command: object) -> None:
        log = (self.home / f"{name}.out").open("a")
        environment = os.environ | self.env
        words = ["setpriv", "--pdeathsig", "TERM", *map(str, command)]  # no daemon outlives the tests
        self.processes[name] = subprocess.Popen(words, env=environment, stdout=log, stderr=log)

    def stop(self, name: str, how: int = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        process.send_signal(how)
        process.wait(30)

    def start_controller(self) -> None:
        self.start("slurmctld", "slurmctld", "-D", "-f", self.home / "slurm.conf")

    def ask(self, *command: object) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(
            [str(one) for one in command], env=os.environ | self.env, capture_output=True, text=True, check=False
        )
        return done.stdout

    def jobs(self, field: str = "%j") -> list[str]:
        return self.ask("squeue", "-h", "-o", field).split("\n")[:-1]

    def wait_for(self, what, seconds: float = 600) -> object:
        """The first true value of a function, which is called again and again."""
        deadline = time.time() + seconds
        while time.time() < deadline:
            found = what()
            if found:
                return found
            time.sleep(0.5)
        raise AssertionError(f"not within {seconds} s: {self.ask('squeue')}")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    for program in ("slurmctld", "slurmd", "munged", "sbatch"):
        if shutil.which(program) is None and not Path("/usr/sbin", program).exists():
            text = f"{program} is not there: run 'make test', or 'tools/setup slurm'"
            if os.environ.get("CI"):
                pytest.fail(text)
            pytest.skip(text)
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons are started as root")
    home = tmp_path_factory.mktemp("slurm")
    cluster = Slurm(home)
    for name in ("state", "spool"):
        (home / name).mkdir()
    for number in (0, 1):  # with plain files a job gets no CUDA_VISIBLE_DEVICES
        os.mknod(home / f"gpu{number}", 0o20666, os.makedev(1, 3))
    key = home / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    home.chmod(0o755)
    names = {"host": socket.gethostname().split(".")[0], "home": home}
    ports = {"controller": _free_port(), "daemon": _free_port()}
    (home / "slurm.conf").write_text(CONFIGURATION.format(**names, **ports))
    (home / "gres.conf").write_text("".join(f"Name=gpu File={home}/gpu{number}\n" for number in (0, 1)))
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{path}:/usr/sbin:/sbin"
    try:
        cluster.start("munged", "munged", "-F", "--force", f"--key-file={key}", f"--socket={home}/munge.socket",
                      f"--pid-file={home}/munged.pid", f"--log-file={home}/munged.log",
                      f"--seed-file={home}/munged.seed")  # fmt: skip
        cluster.wait_for((home / "munge.socket").exists, 20)
        cluster.start_controller()
        cluster.start("slurmd", "slurmd", "-D", "-f", home / "slurm.conf")
        cluster.wait_for(lambda: "idle" in cluster.ask("sinfo", "-h", "-o", "%t"), 60)
        yield cluster
    finally:
        cluster.ask("scancel", "--me")
        for _ in range(40):  # a job outlives its daemons
            if cluster.jobs():
                time.sleep(0.5)
        os.environ["PATH"] = path
        for name in ("slurmd", "slurmctld", "munged"):
            if name in cluster.processes:
                cluster.stop(name)
