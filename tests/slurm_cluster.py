"""A SLURM of one node on this machine, from Debian's packages, in a folder of its own; started by root."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
from program import wait_until

_CPUS = 2
_CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={socket}
CredType=cred/munge
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
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
SlurmdTimeout=10
SchedulerParameters=batch_sched_delay=0,requeue_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
"""


class SlurmCluster:
    """munge, the controller and a node, until the end of the block.

    Attributes:
        environment: makes SLURM's commands find it.
        hidden: a folder that the node does not see, where this machine `hides` one.
    """

    def __enter__(self):
        self._held = ExitStack()
        with self._held:
            self._start()
            self._held = self._held.pop_all()
        return self

    def __exit__(self, *_):
        self._held.close()

    def _start(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ablate-slurm-"))
        self._held.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._programs = []
        self._held.callback(lambda: [program.wait() for program in self._programs])
        self.folder.chmod(0o755)  # munge's user has to get through
        self._conf = self.folder / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self._conf)}
        self._start_munge()
        self._configure()
        self._held.callback(self._kill, "slurmctld")
        self._held.callback(self.kill_node)
        self._started("slurmctld", "-D", "-c")
        self.start_node()
        wait_until(lambda: self.run("sinfo", "-h", "-o", "%T").strip() == "idle", 30)

    def _start_munge(self):
        place = self.folder / "munge"
        place.mkdir()
        key = place / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        for path in (place, key):
            shutil.chown(path, "munge", "munge")
        files = {name: place / name for name in ("socket", "key-file", "pid-file", "log-file", "seed-file")}
        files["key-file"] = key
        command = ["munged", "--foreground", *(f"--{name}={path}" for name, path in files.items())]
        munged = self._started(*command, user="munge", group="munge", extra_groups=[])
        self._held.callback(munged.kill)
        self._socket = files["socket"]
        wait_until(self._socket.exists, 20)

    def _configure(self):
        self.hidden = self.folder / "hidden"
        for name in ("state", "spool", "hidden"):
            (self.folder / name).mkdir()
        try_it = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(self.hidden)]
        self.hides = subprocess.run(try_it, capture_output=True, check=False).returncode == 0
        self._host = socket.gethostname().partition(".")[0]
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        ports = {"controller_port": _free_port(), "node_port": _free_port()}
        self._conf.write_text(
            _CONF.format(host=self._host, socket=self._socket, folder=self.folder, cpus=_CPUS, **ports)
        )

    def start_node(self):
        """Start the node's daemon, also after its death."""
        hiding = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {self.hidden} && exec "$@"', "sh"]
        self._started(*(hiding if self.hides else []), "slurmd", "-D", "-N", self._host)

    def set_node(self, state):
        """As an administrator does: DRAIN, DOWN, RESUME."""
        self.run("scontrol", "update", f"NodeName={self._host}", f"State={state}", "Reason=tests")

    def kill_node(self):
        """As if the node were switched off: its daemon, and all jobs on it."""
        self._kill("slurmd", "slurmstepd")

    def run(self, *command):
        """The output of one of SLURM's programs."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout

    def jobs(self):
        """Id → state of the jobs that the controller remembers."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def processes(self, *names):
        """Processes of this cluster's programs, which have its folder as theirs, with all that they have started."""
        found = []
        for process in psutil.process_iter(["name"]):
            with suppress(psutil.Error):
                if process.info["name"] in names and process.cwd() == str(self.folder):
                    found += [process, *process.children(recursive=True)]
        return found

    def _kill(self, *names):
        while found := self.processes(*names):
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(found, timeout=10)

    def _started(self, *command, **options):
        with (self.folder / "output.log").open("ab") as log:
            program = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,
            )
        self._programs.append(program)
        return program


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
