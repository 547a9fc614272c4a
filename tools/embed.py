#!/usr/bin/env python3
"""embed.py OUT.cc SYMBOL ROOT FILE...: writes a C++ file that holds each FILE (named relative to ROOT) as bytes.

The program carries its runtimes and templates inside, so that one file is all there is to install.
"""
import os
import sys


def main() -> None:
    out, symbol, root, *files = sys.argv[1:]
    lines = ['#include "base/embedded.h"', "", "namespace mayfly::embedded {", "namespace {", ""]
    entries = []
    for index, path in enumerate(sorted(files)):
        with open(path, "rb") as source:
            data = source.read()
        rows = [",".join(str(byte) for byte in data[i : i + 40]) for i in range(0, len(data), 40)]
        lines.append(f"constexpr unsigned char kFile{index}[] = {{")
        lines.append(",\n".join(rows + ["0"]))
        lines.append("};")
        name = os.path.relpath(path, root)
        if name.startswith(".."):  # a file that belongs to every embedding, from elsewhere in the tree
            name = os.path.basename(path)
        mode = "0755" if os.access(path, os.X_OK) else "0644"
        entries.append(f'    {{"{name}", std::string_view(reinterpret_cast<const char*>(kFile{index}), {len(data)}), {mode}}},')
    lines += ["", "}  // namespace", "", f"std::span<const base::EmbeddedFile> {symbol}() {{"]
    if entries:
        lines += ["  static const base::EmbeddedFile files[] = {", *entries, "  };", "  return files;"]
    else:
        lines.append("  return {};")
    lines += ["}", "", "}  // namespace mayfly::embedded", ""]
    with open(out, "w", encoding="ascii") as target:
        target.write("\n".join(lines))


main()
