"""Measures what Almoner costs: plain Envoy, an empty Wasm filter, and Almoner, as three listeners
of one Envoy with one worker, loaded in turn, round after round.

What counts is the CPU time of Envoy per request, which another load on the machine disturbs least;
each number is the median of the rounds. Nothing is encrypted on either side, so that TLS does not
make the filter look cheap. The listeners are those of envoy/sidecar.yaml, the lease comes from a
scripted broker, once.
"""

import argparse
import copy
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support import envoy, paths  # noqa: E402
from support.broker import ScriptedBroker  # noqa: E402
from support.caller import CHAT, Caller  # noqa: E402
from support.stand import Stand  # noqa: E402

MODEL = "sim-bench"
# Of the simulator's prepared stream; one more where usage is asked for, as Almoner does.
EVENTS = 200
# Almoner's CPU per exchange over the empty filter's: where it has to be, by kind of exchange.
TARGETS = {"unary": 1.6, "stream": 1.4}
LISTENERS = ["plain", "empty", "almoner"]


@dataclasses.dataclass
class Measured:
    """One load of one listener."""

    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """CPU time of Envoy per request."""


def main() -> int:
    options = parse_options()
    with tempfile.TemporaryDirectory() as scratch, Stand(pathlib.Path(scratch) / "etc") as stand:
        broker = ScriptedBroker(stand, expires_in=3600)
        listeners = LISTENERS if paths.PLUGIN.exists() else LISTENERS[:2]
        gateway = start(stand, broker, listeners)
        results = {}
        for kind in TARGETS:
            for name in listeners:
                check(gateway, stand, name, kind)
            results[kind] = measure(gateway, stand, listeners, kind, options)
            report(kind, results[kind])
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(as_json(results, options), indent=1) + "\n")
    print(f"written to {options.json}")
    missed = [kind for kind in TARGETS if ratio(results[kind]) > TARGETS[kind]]
    for kind in missed:
        print(f"{kind}: over the target of {TARGETS[kind]} times the empty filter")
    return 1 if missed and options.strict else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one short round: does it run at all?")
    parser.add_argument("--strict", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each load")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "target/bench/load.json")
    options = parser.parse_args()
    if options.smoke:
        options.rounds, options.seconds = 1, 1
    return options


def start(stand: Stand, broker: ScriptedBroker, listeners: list[str]) -> envoy.Envoy:
    """The sidecar's listener several times, with another filter, or none, in the plugin's place."""
    configuration = stand.configuration("sidecar.yaml", broker=broker.port)
    document = envoy.policy(configuration)
    document["policies"][0]["allow"][0]["models"].append(MODEL)
    for budget in document["budgets"].values():
        budget["limit"] = 10**15
    envoy.set_policy(configuration, document)

    resources = configuration["static_resources"]
    [app] = resources["listeners"]
    resources["listeners"] = []
    for name in listeners:
        one = {"static_resources": {"listeners": [copy.deepcopy(app)]}}
        adapt(one, name)
        resources["listeners"] += one["static_resources"]["listeners"]
    for cluster in resources["clusters"]:
        if cluster["name"] != "broker":
            in_plaintext(cluster, stand.provider.plain)
    return stand.adopt(envoy.Envoy(configuration, stand.run, name="bench", concurrency=1))


def adapt(configuration: dict, name: str):
    [listener] = configuration["static_resources"]["listeners"]
    listener["name"] = name
    [manager] = envoy.http_managers(configuration)
    if name == "plain":
        manager["http_filters"] = [f for f in manager["http_filters"] if f["name"] != "almoner"]
    elif name == "empty":
        envoy.use_module(configuration, paths.empty_filter(), adapt_capabilities=True)
        [plugin] = envoy.plugins(configuration)
        plugin["name"] = plugin["vm_config"]["vm_id"] = "empty"
    else:
        envoy.use_module(configuration, paths.plugin(), adapt_capabilities=False)


def in_plaintext(cluster: dict, port: int):
    del cluster["transport_socket"]
    # The clusters share one value in the file; the broker's stays as it is.
    protocols = copy.deepcopy(cluster["typed_extension_protocol_options"])
    cluster["typed_extension_protocol_options"] = protocols
    [options] = protocols.values()
    del options["auto_config"]
    options["explicit_http_config"] = {"http_protocol_options": {}}
    [group] = cluster["load_assignment"]["endpoints"]
    for each in group["lb_endpoints"]:
        each["endpoint"]["address"]["socket_address"]["port_value"] = port


def body(kind: str) -> str:
    fields = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You answer customers of a small bakery, briefly."},
            {"role": "user", "content": "Which of your breads keep for three days? " * 4},
        ],
        "temperature": 0.2,
        "max_tokens": 512,
    }
    fields |= {"stream": True} if kind == "stream" else {}
    # The simulator looks for these very bytes.
    return json.dumps(fields, separators=(",", ":"))


def check(gateway: envoy.Envoy, stand: Stand, name: str, kind: str):
    """What is measured has to be right first."""
    caller = Caller(gateway.port(name), token=stand.openai_key)
    answer = caller.request("POST", CHAT, body=body(kind).encode())
    if answer.status != 200 or not answer.complete:
        raise SystemExit(f"{name}, {kind}: {answer.status} {answer.body!r}\n{gateway.tail()}")
    if kind == "stream" and len(answer.events()) != EVENTS:
        raise SystemExit(f"{name}: {len(answer.events())} events, expected {EVENTS}")


def measure(gateway, stand, listeners, kind, options) -> dict[str, Measured]:
    rounds = {name: [] for name in listeners}
    for number in range(options.rounds):
        # Each round in another order, so that none always runs first.
        shift = number % len(listeners)
        for name in listeners[shift:] + listeners[:shift]:
            rounds[name].append(load(gateway, stand, name, kind, options))
    return {name: median(loads) for name, loads in rounds.items()}


def load(gateway, stand, name, kind, options) -> Measured:
    url = f"http://127.0.0.1:{gateway.port(name)}{CHAT}"
    script = pathlib.Path(__file__).with_name("request.lua")
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s"]
    command += ["-s", script, url, "--", body(kind), stand.openai_key]
    before = gateway.cpu_seconds()
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    spent = gateway.cpu_seconds() - before
    counted = json.loads(ran.stdout.strip().splitlines()[-1])
    if counted["errors"] or not counted["requests"]:
        raise SystemExit(f"{name}, {kind}: {counted}\n{gateway.tail()}")
    return Measured(
        rps=counted["requests"] / counted["seconds"],
        p50_ms=counted["p50_ms"],
        p99_ms=counted["p99_ms"],
        cpu_us=spent / counted["requests"] * 1e6,
    )


def median(loads: list[Measured]) -> Measured:
    names = [field.name for field in dataclasses.fields(Measured)]
    return Measured(*(statistics.median(getattr(each, name) for each in loads) for name in names))


def ratio(result: dict[str, Measured]) -> float:
    """Almoner's CPU over the empty filter's; 0 where Almoner was not there to be measured."""
    return result["almoner"].cpu_us / result["empty"].cpu_us if "almoner" in result else 0


def report(kind: str, result: dict[str, Measured]):
    what = f"stream of {EVENTS} events" if kind == "stream" else "unary, 1 KiB"
    columns = ["req/s", "p50 ms", "p99 ms", "CPU µs", "× plain", "× empty"]
    print(f"\n{what:24}" + "".join(f"{column:>9}" for column in columns))
    for name, one in result.items():
        over_plain = one.cpu_us / result["plain"].cpu_us
        over_empty = one.cpu_us / result["empty"].cpu_us
        print(
            f"{name:24}{one.rps:9.0f}{one.p50_ms:9.2f}{one.p99_ms:9.2f}{one.cpu_us:9.1f}"
            f"{over_plain:9.2f}{over_empty:9.2f}",
            flush=True,
        )
    if "almoner" in result:
        print(f"target: at most {TARGETS[kind]} × empty")
    else:
        print("dist/almoner.wasm is not there: run ./scripts/build to have it measured")


def as_json(results: dict, options: argparse.Namespace) -> dict:
    return {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": options.connections,
        "results": {
            kind: {name: dataclasses.asdict(one) for name, one in result.items()}
            for kind, result in results.items()
        },
        "ratios": {kind: ratio(result) for kind, result in results.items()},
        "targets": TARGETS,
    }


if __name__ == "__main__":
    sys.exit(main())
