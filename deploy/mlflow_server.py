"""MLflow on PostgreSQL behind a server, on this machine: python deploy/mlflow_server.py ACTION FOLDER

FOLDER keeps all of it: the database, the artifacts, the logs, and the database's password, which is made at the first
start. Both servers listen on 127.0.0.1 alone. PostgreSQL refuses to run as root: started by root it runs as `postgres`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

_HOST, _USER, _DATABASE = "127.0.0.1", "ablate", "mlflow"
_START_SECONDS, _STOP_SECONDS = 180.0, 30.0


class Refused(Exception):
    """What stands in the way, in one line."""


class Database:
    """PostgreSQL in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "postgres"
        self._password = folder / "password"
        # For libpq, and so for psycopg: a password on a command line or in an address would be shown by `ps`.
        self.passfile = folder / "pgpass"

    def start(self, port: int) -> None:
        """Start it, made first where there is none; one that runs stays at its port."""
        if not (self._data / "PG_VERSION").is_file():
            self._make()
        if not self.runs():
            if self._is_zombie():
                (self._data / "postmaster.pid").unlink()
            _refuse_taken(port, "--postgres-port")
            settings = f"-c listen_addresses={_HOST} -c port={port} -c unix_socket_directories="
            self._run("pg_ctl", "-w", "-t", f"{_START_SECONDS:.0f}", "-l", f"{self._data}/log", "-o", settings, "start")
        self._write_passfile()
        self._create_database()

    def runs(self) -> bool:
        """Whether it answers to pg_ctl."""
        is_there = (self._data / "postmaster.pid").is_file() and not self._is_zombie()
        return is_there and not self._call("pg_ctl", "status").returncode

    def _is_zombie(self) -> bool:
        """Whether it was killed and never waited for, as in a container without init: pg_ctl takes it for alive."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().splitlines()[0])
            return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        except (OSError, psutil.NoSuchProcess):
            return False

    def stop(self) -> None:
        """Stop it once its clients' transactions are rolled back and all is on disk."""
        if self.runs():
            self._run("pg_ctl", "-w", "-m", "fast", "stop")

    def address(self) -> str:
        """As SQLAlchemy and MLflow have it, without a password."""
        return f"postgresql+psycopg://{_USER}@{_HOST}:{self._port()}/{_DATABASE}"

    def _port(self) -> int:
        return int((self._data / "postmaster.pid").read_text().splitlines()[3])

    def _make(self) -> None:
        self._data.mkdir(exist_ok=True)
        once = self._data.with_name("password-once")  # the user postgres cannot read the other
        once.unlink(missing_ok=True)
        _write_secret(once, self.password() + "\n")
        if (user := _other_user()) is not None:
            for path in (self._data, once):
                shutil.chown(path, user)
        try:
            self._run(
                "initdb", "--username", _USER, f"--pwfile={once}", "--auth=scram-sha-256", "--encoding=UTF8",
                "--locale=C", "--data-checksums",
            )  # fmt: skip
        finally:
            once.unlink()

    def password(self) -> str:
        """The superuser's, made where there is none."""
        if not self._password.is_file():
            _write_secret(self._password, secrets.token_urlsafe(24) + "\n")
        if self._password.stat().st_mode & 0o077:
            raise Refused(f"{self._password}: others may read it; chmod 600 {self._password}")
        return self._password.read_text().strip()

    def _write_passfile(self) -> None:
        escaped = self.password().replace("\\", r"\\").replace(":", r"\:")
        line = f"{_HOST}:{self._port()}:*:{_USER}:{escaped}\n"
        if not self.passfile.is_file() or self.passfile.read_text() != line:
            self.passfile.unlink(missing_ok=True)
            _write_secret(self.passfile, line)

    def _create_database(self) -> None:
        import psycopg

        server = self.address().replace("+psycopg", "").removesuffix(_DATABASE) + "postgres"
        try:
            with psycopg.connect(server, passfile=str(self.passfile), autocommit=True) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_DATABASE]).fetchone():
                    connection.execute(f"CREATE DATABASE {_DATABASE}")
        except psycopg.Error as error:  # a password, say, that was changed in the file alone
            raise Refused(f"PostgreSQL refuses a connection: {str(error).splitlines()[0]}") from error

    def _run(self, program: str, *arguments: str) -> None:
        ended = self._call(program, *arguments)
        if ended.returncode:
            log = self._data / "log"
            said = [*(log.read_text() if log.is_file() else "").splitlines(), *ended.stdout.splitlines()]
            why = [line for line in said if "FATAL" in line or "error:" in line] or said or ["it gives no reason"]
            raise Refused(f"{program} has failed: {why[-1]}")

    def _call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_programs(self._data) / program, "-D", self._data, *arguments],
            cwd="/",  # which any user may enter
            user=_other_user(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


class Server:
    """`mlflow server`, with the artifacts of all runs in a folder that clients reach through it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder, folder / "server.log"
        self._recorded = folder / "server.json"  # address, process id, and when that process was created

    def start(self, database: Database, port: int, workers: int) -> str:
        """Start it and wait until it answers; returns its address."""
        _refuse_taken(port, "--port")
        address = f"http://{_HOST}:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port)]
        command += ["--workers", str(workers), "--backend-store-uri", database.address(), "--serve-artifacts"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = os.environ | {"PGPASSFILE": str(database.passfile), "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # processes for what no study needs
        with self._log.open("w") as log:
            process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        created = psutil.Process(process.pid).create_time()
        self._recorded.write_text(json.dumps({"address": address, "pid": process.pid, "created": created}))
        deadline = time.monotonic() + _START_SECONDS
        while not _is_healthy(address):
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise Refused(f"mlflow server has not started: {self._last_line()}; see {self._log}")
            time.sleep(0.2)
        return address

    def running(self) -> str | None:
        """Its address; None while it does not run."""
        return str(json.loads(self._recorded.read_text())["address"]) if self._process() is not None else None

    def stop(self) -> None:
        """Let it finish the requests that it has, and end all its processes."""
        if (process := self._process()) is None:
            return
        group = [process, *process.children(recursive=True)]
        os.killpg(process.pid, signal.SIGTERM)
        _, left = psutil.wait_procs(group, timeout=_STOP_SECONDS)
        for each in left:
            each.kill()
        psutil.wait_procs(left)
        self._recorded.unlink()

    def _process(self) -> psutil.Process | None:
        """None also where the process id has become another's."""
        try:
            recorded = json.loads(self._recorded.read_text())
            process = psutil.Process(recorded["pid"])
            is_ours = process.create_time() == recorded["created"] and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, psutil.NoSuchProcess):
            return None
        return process if is_ours else None

    def _last_line(self) -> str:
        lines = [line for line in self._log.read_text().splitlines() if line.strip()]
        return lines[-1] if lines else "it has printed nothing"


def start(folder: Path, options: argparse.Namespace) -> None:
    """Start what does not run, and say where it is."""
    for needed in ("mlflow", "psycopg"):
        if importlib.util.find_spec(needed) is None:
            raise Refused(f"{needed} is not installed; pip install 'ablate-lm[postgres]'")
    _make_folder(folder)
    database, server = Database(folder), Server(folder)
    was_running = database.runs()
    try:
        database.start(options.postgres_port)
        address = server.running() or server.start(database, options.port, options.workers)
    except Refused:
        if not was_running:
            database.stop()
        raise
    print(f"MLflow: {address}")
    print(f"export MLFLOW_TRACKING_URI={address}")


def stop(folder: Path, _: argparse.Namespace) -> None:
    """Stop both; what is stopped already is left alone."""
    Server(folder).stop()
    Database(folder).stop()
    print("stopped")


def status(folder: Path, _: argparse.Namespace) -> None:
    """Say what runs; exit code 3 where not both do and answer."""
    address, database = Server(folder).running(), Database(folder).runs()
    answers = address is not None and _is_healthy(address)
    print(f"PostgreSQL: {'running' if database else 'stopped'}")
    print(f"MLflow: {'stopped' if address is None else address if answers else f'{address} does not answer'}")
    if not (answers and database):
        sys.exit(3)


def upgrade(folder: Path, options: argparse.Namespace) -> None:
    """Stop the server, and migrate the database to the MLflow that is installed; `start` starts the server again."""
    Server(folder).stop()
    database = Database(folder)
    database.start(options.postgres_port)
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", database.address()]
    if subprocess.run(command, env=os.environ | {"PGPASSFILE": str(database.passfile)}, check=False).returncode:
        raise Refused("mlflow db upgrade has failed; what it printed is above")
    print("upgraded; start the server again")


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "artifacts").mkdir(mode=0o700, exist_ok=True)
    user = _other_user()
    folder.chmod(0o700 if user is None else 0o711)
    if user is not None and subprocess.run(["test", "-x", folder], user=user, check=False).returncode:
        raise Refused(f"{folder}: the user {user} cannot enter it; name a folder below /srv or /var/lib")


def _other_user() -> str | None:
    """The user that PostgreSQL runs as; None: the one that runs this."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise Refused("there is no user postgres; on Debian: apt-get install postgresql") from None


def _programs(data: Path) -> Path:
    """Where PostgreSQL's programs are: of the version that made the database; where there is none yet, the newest."""
    version = data / "PG_VERSION"
    made = version.read_text().strip() if version.is_file() else None
    found = [path.parent for place in ("usr/lib/postgresql", "opt/homebrew/opt") for path in
             Path("/", place).glob(f"*{made or ''}/bin/initdb")]  # fmt: skip
    found.sort(key=lambda path: [int(n) for n in "".join(c if c.isdigit() else " " for c in str(path)).split()])
    if found:
        return found[-1]
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    raise Refused(f"no PostgreSQL {made or ''} on this machine; on Debian: apt-get install postgresql")


def _write_secret(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _refuse_taken(port: int, option: str) -> None:
    with socket.socket() as probe:
        if probe.connect_ex((_HOST, port)) == 0:
            raise Refused(f"port {port} is taken; name another, {option}={port + 1}")


def _is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def main() -> None:
    """Do what the command line asks for; what is wrong ends in one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python deploy/mlflow_server.py", description=__doc__.partition(":")[0])
    parser.add_argument("action", choices=_ACTIONS)
    parser.add_argument("folder", type=Path, help="keeps database, artifacts, logs and password")
    parser.add_argument("--port", type=int, default=5000, help="MLflow's (default: %(default)s)")
    parser.add_argument("--postgres-port", type=int, default=5433, help="PostgreSQL's (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that answer requests (default: %(default)s)")
    options = parser.parse_args()
    try:
        _ACTIONS[options.action](options.folder.resolve(), options)
    except (Refused, OSError) as error:
        sys.exit(f"mlflow_server: {error}")


_ACTIONS = {"start": start, "stop": stop, "status": status, "upgrade": upgrade}


if __name__ == "__main__":
    main()
