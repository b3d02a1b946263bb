"""Rows of the daemon: uploads, reads, children, start-up and memory."""
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from harness import Spread, Talker, once, ratio
from report import Line, Result

UPLOAD = 500_000_000
MEMORY = "/dev/shm"


class Appliance(Talker):
    """A whole appliance on a software TPM; `place` says where it listens and how to get in."""

    def __init__(self, bench, *arguments, folder=None):
        """Its files lie below `folder`, or where temporary files do."""
        where = ["env", f"TMPDIR={folder}"] if folder else []
        super().__init__([*where, bench.program("core"), "appliance", *arguments])
        self.place = self.answer()

    def restart(self):
        told = self.ask("restart")
        self.place.update(told)
        return told

    def server(self):
        return ["--address", self.place["address"], "--ca", self.place["ca"], "--identity", self.place["identity"]]

    def curl(self, method, path, *arguments):
        base = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "60", "--request", method]
        base += ["--cacert", self.place["ca"], "--cert", self.place["identity"]]
        ran = subprocess.run(base + [f"https://{self.place['address']}{path}", *map(str, arguments)], capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(f"{method} {path}: {ran.stdout} {ran.stderr}")
        return json.loads(ran.stdout) if ran.stdout else None

    def post(self, recording):
        consent = 'salama-metadata: {"consent":{"basis":"caller","purposes":["transcription"]}}'
        head = ["--header", consent, "--header", "content-type: audio/wav"]
        return self.curl("POST", "/api/v1/calls", *head, "--data-binary", f"@{recording}")["id"]

    def state(self, call):
        return self.curl("GET", f"/api/v1/calls/{call}")["state"]

    def wait(self, call, states=("done", "failed", "cancelled"), limit=120):
        until = time.monotonic() + limit
        while (state := self.state(call)) not in states:
            if time.monotonic() > until:
                raise TimeoutError(f"the call is still {state}")
            time.sleep(0.2)
        return state


def cpu_ms(pid):
    """Processor time of a process so far, milliseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 10


def plain_write(path):
    """MB/s of writing as many bytes to a file and waiting until they are on the disk: what the disk alone allows."""
    block = bytes(range(256)) * 4096
    began = time.monotonic()
    with open(path, "wb", buffering=0) as file:
        for _ in range(UPLOAD // len(block)):
            file.write(block)
        os.fdatasync(file.fileno())
    rate = UPLOAD / 1e6 / (time.monotonic() - began)
    path.unlink()
    return rate


def upload(bench, rounds=5):
    put = [bench.program("core"), "put", "--bytes", UPLOAD]
    sealed, keyed = "into sealed segments", "the same with an idempotency key, so hashed too"
    in_memory = "into sealed segments, the state directory in memory (tmpfs)"
    rates = {"into the sink": [], sealed: [], keyed: [], in_memory: []}
    servers = {name: [] for name in rates}
    disk = []
    recogniser = ("--asr", "whisper-tiny-en")
    with (
        tempfile.TemporaryDirectory() as folder,
        Talker([bench.program("core"), "sink", folder]) as sink,
        Appliance(bench, *recogniser) as appliance,
        Appliance(bench, *recogniser, folder=MEMORY) as diskless,
    ):
        place = sink.answer()
        there = ["--address", place["address"], "--ca", f"{folder}/ca.pem", "--identity", f"{folder}/client.pem"]
        sides = [("into the sink", there, place["pid"], None)]
        for name, side in ((sealed, appliance), (keyed, appliance), (in_memory, diskless)):
            sides.append((name, side.server(), side.place["pid"], side))
        for number in range(rounds + 1):
            for name, server, pid, side in sides:
                used = cpu_ms(pid)
                told = once(put + server + (["--key", f"bench-{number}"] if name == keyed else []))
                if number:
                    rates[name].append(told["mb_per_s"])
                    servers[name].append(cpu_ms(pid) - used)
                if side:
                    side.wait(json.loads(told["reply"])["id"])
                if side is diskless:
                    # Memory is what the next round needs.
                    for recording in Path(side.place["state"], "audio").iterdir():
                        recording.unlink()
            disk.append(plain_write(Path(appliance.place["ca"]).with_name("plain")))
    sink = rates["into the sink"]
    share, with_key, diskless_share = (Spread(100 * mine / most for mine, most in zip(rates[name], sink)) for name in (sealed, keyed, in_memory))
    of_disk = Spread(100 * mine / most for mine, most in zip(rates[sealed], disk[1:]))
    table = [("", "MB/s", "processor time of the server, s")]
    for name in rates:
        table.append((name, Spread(rates[name]).text(0), Spread(value / 1000 for value in servers[name]).text(2)))
    table.append(("plain bytes to a file and synced, without any server", Spread(disk).text(0), ""))
    return Result(
        "500 MB upload over mutual TLS into sealed segments",
        "the same bytes over the same TLS and HTTP settings into a handler that drops them",
        [
            Line("upload, share of the sink's rate", share.text(0, " %"), share.median, 60, goal=">= 60 %"),
            Line("upload with an idempotency key, share of the sink's rate", with_key.text(0, " %"), with_key.median),
            Line("upload with the state directory in memory, share of the sink's rate", diskless_share.text(0, " %"), diskless_share.median),
            Line("upload, share of the rate of plain synced writes to the same disk", of_disk.text(0, " %"), of_disk.median),
        ],
        table,
        [
            f"{UPLOAD // 10**6} MB from memory, TLS 1.3 with client certificate, HTTP/1.1; {rounds} rounds after a warm-up. The clock stops "
            "at the reply, when the recording is synced to disk, its call is durable and queued. Client and server share the machine. The "
            "sink waits for no disk, so the row with the state directory in memory says what is ours of the difference; plain writes go through the page cache, the daemon's past it.",
        ],
        "`benches/rows_daemon.py`, `benches/core`",
    )


def get(bench, rounds=5):
    requests = 3000
    with tempfile.TemporaryDirectory() as name, Appliance(bench, "--asr", "whisper-tiny-en", "--more", "[limits]\nreads_per_minute = 60000\n") as appliance:
        folder = Path(name)
        folder.chmod(0o755)
        call = appliance.post(bench.sounds / "clips" / "vm-review.wav")
        if appliance.wait(call) != "done":
            raise RuntimeError("the call was not transcribed")
        paths = {"record": f"/api/v1/calls/{call}"}
        for kind, path in paths.items():
            (folder / f"{kind}.json").write_text(json.dumps(appliance.curl("GET", path)))
        nginx, there = web_server(bench, folder)
        found = {}
        try:
            for number in range(rounds + 1):
                for kind, path in paths.items():
                    for connections in (1, 8):
                        for side, server, asked in (("Salama", appliance.server(), path), ("nginx", there, f"/{kind}.json")):
                            run = ["get", *server, "--path", asked, "--connections", connections, "--requests", requests]
                            told = once([bench.program("core"), *run])
                            if number:
                                found.setdefault((kind, connections, side), []).append(told)
        finally:
            nginx.terminate()
            nginx.wait()
    lines, table = [], [("what", "connections", "", "requests a second", "median, ms", "99 %, ms")]
    for kind in paths:
        for connections in (1, 8):
            rates = {side: [told["requests_per_s"] for told in found[kind, connections, side]] for side in ("Salama", "nginx")}
            part = Spread(mine / theirs for mine, theirs in zip(rates["Salama"], rates["nginx"]))
            what = f"authorised GET of a {kind}, {connections} connection{'s' if connections > 1 else ''}, of nginx's rate"
            lines.append(Line(what, part.text(2), part.median))
            for side in rates:
                told = found[kind, connections, side]
                times = [Spread(one[at] for one in told).text(2) for at in ("p50_ms", "p99_ms")]
                table.append((kind, connections, side, Spread(rates[side]).text(0), *times))
    return Result(
        "Authorised GET of a record, keep-alive",
        "nginx serving a file of the same bytes with TLS 1.3 and verified client certificates, two workers, access log on",
        lines,
        table,
        [
            f"{requests} requests a run, {rounds} rounds after a warm-up. Ours checks identity, role, rate and ownership, writes an audit "
            "entry, opens the sealed record of the call and renders it. Transcripts are not measured so: the keeper opens only so many a "
            "minute, on purpose.",
        ],
        "`benches/rows_daemon.py`, `benches/core`",
    )


def web_server(bench, folder):
    once_made = subprocess.run([bench.program("core"), "sink", folder, "--certificates-only"], check=True)
    assert once_made.returncode == 0
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    version = subprocess.run([binary, "-v"], capture_output=True, text=True).stderr
    bench.versions["nginx"] = version.strip().rsplit("/", 1)[1]
    port = 18443
    (folder / "nginx.conf").write_text(
        f"""
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
daemon off;
events {{ worker_connections 256; }}
http {{
    types {{ application/json json; }}
    access_log {folder}/access.log;
    sendfile on;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.pem;
        ssl_client_certificate {folder}/ca.pem;
        ssl_verify_client on;
        ssl_protocols TLSv1.3;
        root {folder};
    }}
}}
"""
    )
    nginx = subprocess.Popen([binary, "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while not (folder / "nginx.pid").exists():
        if nginx.poll() is not None or time.monotonic() > until:
            raise RuntimeError("nginx did not start: " + (folder / "error.log").read_text())
        time.sleep(0.05)
    return nginx, ["--address", f"127.0.0.1:{port}", "--ca", folder / "ca.pem", "--identity", folder / "client.pem"]


def child(bench, rounds=3):
    told = [once([bench.program("core"), "children", "--children", 50]) for _ in range(rounds)]
    ready = Spread(time for one in told for time in one["ready_ms"])
    load = Spread(one["load_ms"] for one in told)
    faster = Spread(one["load_ms"] / Spread(one["ready_ms"]).median for one in told)
    return Result(
        "A child ready with its models loaded",
        "fork + exec + load: what a process of its own for each call would cost",
        [
            Line("child ready: forked, limited, confined", ready.text(1, " ms"), ready.median, 10, below=True, goal="< 10 ms"),
            Line("fork against fork + exec + load", faster.text(0, "x"), faster.median),
        ],
        [
            ("", "time, ms"),
            ("fork of the fork server to the child's `Ready`", ready.text(1)),
            ("fork + exec + verify + load + warm up + confine (Whisper base, Silero, Rampart)", load.text(0)),
        ],
        [f"{rounds} fork servers, 50 children each, one after the other; models in the page cache."],
        "`benches/rows_daemon.py`, `benches/core`",
    )


def start(bench, rounds=5):
    with Appliance(bench, "--asr", "whisper-base") as appliance:
        times = Spread(appliance.restart()["ready_ms"] / 1000 for _ in range(rounds))
    return Result(
        "Start to READY, warm cache",
        "the clock",
        [Line("start of the daemon to READY, Whisper base", times.text(2, " s"), times.median, 2, below=True, goal="< 2 s")],
        notes=[f"{rounds} restarts; software TPM, keeper, models verified, loaded and warmed up, store opened, all confined."],
        script="`benches/rows_daemon.py`, `benches/core`",
    )


def family(pid):
    """The process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                pass
    found = [pid]
    for known in found:
        found += [one for one, parent in parents.items() if parent == known]
    return found


def resident(pid):
    """Name, proportional and plain resident size of a process, MB."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Rss:", "Pss:")):
            sizes[line[:3]] = int(line.split()[1]) * 1024 / 1e6
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    return name, sizes["Pss"], sizes["Rss"]


def sizes(pid):
    told = []
    for one in family(pid):
        try:
            told.append(resident(one))
        except (OSError, KeyError):
            pass
    return told


def memory(bench):
    more = "[jobs]\nconcurrent = 3\nthreads = 2\n"
    peaks = {}
    with Appliance(bench, "--asr", "whisper-base", "--more", more) as appliance:
        pid = appliance.place["pid"]
        time.sleep(1)
        idle = sizes(pid)
        for calls in (1, 2, 3):
            posted = [appliance.post(bench.sounds / "call.wav") for _ in range(calls)]
            for call in posted:
                appliance.wait(call, ("running",))
            until = time.monotonic() + 14
            while time.monotonic() < until:
                now = sizes(pid)
                pss, rss = sum(one[1] for one in now), sum(one[2] for one in now)
                if pss > peaks.get(calls, (0, 0))[0]:
                    peaks[calls] = (pss, rss)
                time.sleep(0.1)
            for call in posted:
                appliance.curl("POST", f"/api/v1/calls/{call}/cancel")
                appliance.wait(call)
    pss = sum(one[1] for one in idle)
    further = (peaks[3][0] - peaks[1][0]) / 2
    table = [("", "PSS, MB", "RSS, MB")]
    table += [(f"idle: {name}", f"{one:.0f}", f"{plain:.0f}") for name, one, plain in idle]
    table.append(("idle: all", f"{pss:.0f}", f"{sum(one[2] for one in idle):.0f}"))
    table += [(f"{calls} call{'s' if calls > 1 else ''} running, peak of all", f"{peaks[calls][0]:.0f}", f"{peaks[calls][1]:.0f}") for calls in peaks]
    return Result(
        "Memory",
        "the goals",
        [
            Line("memory, all processes idle (PSS)", f"{pss:.0f} MB", pss, 500, below=True, goal="<= 500 MB"),
            Line("memory per further concurrent call (PSS)", f"{further:.0f} MB", further, 150, below=True, goal="<= 150 MB"),
        ],
        table,
        [
            "PSS: pages that processes share are divided among them, so the sum is what the machine gives. RSS counts a page once in each "
            "process that shares it. Whisper base; two threads a call; the largest of samples every 0.1 s over the first 14 s of the "
            "ten-minute call; per further call is the difference of three calls and one, halved. Without the TPM's simulator.",
        ],
        "`benches/rows_daemon.py`, `benches/core`",
    )
