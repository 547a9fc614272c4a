"""Row 6: what the platform takes, what an idle environment takes beyond its runtime, in processes and in the kernel, and a thousand idle
Python environments together.

Memory of processes is PSS: pages that several share count in parts. A process of an interpreter or of the function's own program is
"the runtime"; everything else below the server is the platform's. Kernel memory is what Slab, KernelStack, PageTables and Percpu of
/proc/meminfo grew by: on a machine that does other work meanwhile it wanders.
"""
import os
import re
import sys
import time

import functions
from measuring import Signer, cpu_seconds, load, prepare, pss_kib, tree

RUNTIMES = re.compile(r"/(python3[0-9.]*|node|java|bootstrap)( \(deleted\))?$")
SETTLE_SECONDS = 2.0
IDLE_SECONDS = 10
COUNTS = {"C++": 200, "Python": 200, "Node": 50}
THOUSAND = 1000
RUNTIME_GOALS_MIB = {"Python": 2.2, "Node": 10, "C++": None}
KERNEL_FIELDS = ("Slab", "KernelStack", "PageTables", "SecPageTables", "Percpu")


def meminfo():
    with open("/proc/meminfo", encoding="ascii") as file:
        return {line.split(":")[0]: int(line.split()[1]) for line in file}


def kernel_kib():
    found = meminfo()
    return sum(found.get(field, 0) for field in KERNEL_FIELDS)


def drop_unused_inodes():
    """Names and inodes that the kernel only remembers are no environment's memory."""
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as control:
            control.write("2")
    except OSError:
        pass


def is_runtime(pid):
    try:
        return RUNTIMES.search(os.readlink(f"/proc/{pid}/exe")) is not None
    except OSError:
        return False


def snapshot(server):
    """{platform, runtime: KiB of PSS; kernel: KiB; available: KiB; runtimes: processes}."""
    time.sleep(SETTLE_SECONDS)
    drop_unused_inodes()
    members = tree(server.process.pid)
    runtimes = [pid for pid in members if is_runtime(pid)]
    return {"platform": pss_kib(set(members) - set(runtimes)), "runtime": pss_kib(runtimes), "kernel": kernel_kib(), "available": meminfo()["MemAvailable"],
            "runtimes": len(runtimes)}


def deploy(server, language, count):
    """Invoked once each later; returns their names."""
    signer, port = Signer(server), functions.api_port(server)
    names = [f"idle-{number}" for number in range(count)]
    prepare(port, [functions.creation(signer, name, functions.by_language(language)) for name in names], 8)
    prepare(port, [signer.request("GET", f"{functions.API}/{name}/configuration") for name in names], 8)
    return names


def invoke_all(server, names):
    figures = load(functions.api_port(server), [Signer(server).invoke(name) for name in names], 8, 0)
    if figures["errors"] or figures["throttled"]:
        raise RuntimeError(f"{figures['errors'] + figures['throttled']} of {len(names)} invocations failed")


def measure(table, options):
    counts = {language: 5 for language in COUNTS} if options.quick else COUNTS
    rounds = min(options.rounds, 3)
    for number in range(rounds):
        for language, count in counts.items():
            print(f"density, {language}, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            with functions.running_server("--idle-timeout", "1h") as server:
                if language == "C++":
                    table.add("platform", pss_kib=snapshot(server)["platform"])
                names = deploy(server, language, count + 2)
                invoke_all(server, names[:2])  # whatever is made once for a runtime is there before
                before = snapshot(server)
                invoke_all(server, names[2:])
                after = snapshot(server)
                table.add(language, platform_kib=(after["platform"] - before["platform"]) / count, kernel_kib=(after["kernel"] - before["kernel"]) / count,
                          runtime_kib=(after["runtime"] - before["runtime"]) / max(1, after["runtimes"] - before["runtimes"]),
                          total_kib=(before["available"] - after["available"]) / count)
    measure_thousand(table, 10 if options.quick else THOUSAND, 1 if options.quick else IDLE_SECONDS)
    return {}


def measure_thousand(table, count, seconds):
    with functions.running_server("--idle-timeout", "1h") as server:
        names = deploy(server, "Python", count)
        before = snapshot(server)
        invoke_all(server, names)
        after = snapshot(server)
        used = cpu_seconds(server.process.pid)
        time.sleep(seconds)
        used = cpu_seconds(server.process.pid) - used
        processes = after["platform"] + after["runtime"] - before["platform"] - before["runtime"]
        table.add("thousand", count=count, gib=(processes + after["kernel"] - before["kernel"]) / 1048576, processes_gib=processes / 1048576,
                  kernel_gib=(after["kernel"] - before["kernel"]) / 1048576, available_gib=(before["available"] - after["available"]) / 1048576,
                  idle_percent=100 * used / seconds)


def verdicts(table, board):
    board.at_most("6", "platform idle, PSS of all its processes", 12, table.median("platform", "pss_kib") / 1024, "MiB")
    for language in COUNTS:
        board.at_most("6", f"platform's processes for each idle environment, {language}", 150, table.median(language, "platform_kib"), "KiB")
        board.at_most("6", f"kernel memory for each idle environment, {language}", 320, table.median(language, "kernel_kib"), "KiB")
        board.at_most("6", f"idle runtime process, {language}", RUNTIME_GOALS_MIB[language], table.median(language, "runtime_kib") / 1024, "MiB")
    count = int(table.median("thousand", "count"))
    board.at_most("6", f"{count:,} idle Python environments, processes and kernel", 2.5, table.median("thousand", "gib"), "GiB")
    board.at_most("6", f"CPU of {count:,} idle Python environments and the platform", 0.5, table.median("thousand", "idle_percent"), "% of a core")


def render(table, missing, options):
    lines = ["| environments | runtime process, MiB | platform's processes, KiB each | kernel, KiB each | memory no longer available, KiB each |", "|---|---|---|---|---|"]
    for language, count in COUNTS.items():
        lines.append(f"| {5 if options.quick else count} × {language} | {table.median(language, 'runtime_kib') / 1024:.2f} | {table.median(language, 'platform_kib'):.0f} "
                     f"| {table.median(language, 'kernel_kib'):.0f} | {table.median(language, 'total_kib'):.0f} |")
    lines += ["", f"Platform idle: {table.median('platform', 'pss_kib') / 1024:.1f} MiB. {table.median('thousand', 'count'):.0f} idle Python environments: "
              f"{table.median('thousand', 'processes_gib'):.2f} GiB in processes, {table.median('thousand', 'kernel_gib'):.2f} GiB in the kernel, "
              f"{table.median('thousand', 'available_gib'):.2f} GiB less available; {table.median('thousand', 'idle_percent'):.2f} % of a core over "
              f"{IDLE_SECONDS} s idle.", "", f"Medians of {min(options.rounds, 3)} rounds."]
    return "\n".join(lines)


def plot(table, plots):
    bars, goals = {}, {}
    for language in COUNTS:
        for name, title, goal in (("runtime_kib", "runtime process", (RUNTIME_GOALS_MIB[language] or 0) * 1024), ("platform_kib", "platform's processes", 150),
                                  ("kernel_kib", "kernel", 320)):
            bars[f"{language}: {title}"] = max(table.median(language, name), 1)
            if goal:
                goals[f"{language}: {title}"] = goal
    plots.bars("density", "Memory of one idle environment, KiB", bars, goals, lambda label: True, logarithmic=True)
