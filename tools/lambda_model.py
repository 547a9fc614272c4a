#!/usr/bin/env python3
"""lambda_model.py OUT.cc OPERATIONS.json: turns the description of Lambda's interface into the C++ table of src/api/lambda/model.h."""

import json
import sys

TYPES = {
    "string": "kString",
    "integer": "kInteger",
    "long": "kLong",
    "double": "kDouble",
    "boolean": "kBoolean",
    "blob": "kBlob",
    "timestamp": "kTimestamp",
    "structure": "kStructure",
    "list": "kList",
    "map": "kMap",
}
LOCATIONS = {"path": "kPath", "query": "kQuery", "header": "kHeader", "body": "kBody", "payload": "kPayload"}


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)


class Writer:
    def __init__(self, model: dict):
        self.model = model
        self.index = {name: number for number, name in enumerate(model["shapes"])}
        self.lines: list[str] = []
        self.arrays = 0

    def array(self, type_name: str, items: list[str]) -> str:
        """Writes a constant array and answers its name ("{}" for none)."""
        if not items:
            return "{}"
        name = f"kArray{self.arrays}"
        self.arrays += 1
        self.lines.append(f"constexpr {type_name} {name}[] = {{{', '.join(items)}}};")
        return name

    def member(self, member: dict) -> str:
        wire = member.get("wire", member["name"])
        location = LOCATIONS[member.get("in", "body")]
        required = "true" if member.get("required") else "false"
        shape = self.index[member["shape"]]
        return f"{{{quoted(member['name'])}, {quoted(wire)}, Location::{location}, {shape}, {required}}}"

    def shape(self, name: str, shape: dict) -> str:
        values = self.array("std::string_view", [quoted(value) for value in shape.get("enum", [])])
        members = self.array("Member", [self.member(member) for member in shape.get("members", [])])
        fields = [f".name = {quoted(name)}", f".type = ShapeType::{TYPES[shape['type']]}"]
        for bound in ("min", "max"):
            if bound in shape:
                fields.append(f".{bound} = {int(shape[bound])}")
        for text in ("pattern", "match"):
            if text in shape:
                fields.append(f".{text} = {quoted(shape[text])}")
        fields.append(f".values = {values}")
        fields.append(f".members = {members}")
        element = shape.get("member", shape.get("value"))
        if element:
            fields.append(f".element = {self.index[element]}")
        if "key" in shape:
            fields.append(f".key = {self.index[shape['key']]}")
        return "    {" + ", ".join(fields) + "}"

    def operation(self, operation: dict) -> str:
        members = self.array("Member", [self.member(member) for member in operation["members"]])
        names = ", ".join(quoted(operation.get(key, "")) for key in ("name", "method", "path", "query"))
        return f"    {{{names}, {operation['success']}, {members}}}"

    def error(self, name: str, error: dict) -> str:
        bare = "true" if error.get("bare") else "false"
        return f"    {{{quoted(name)}, {error['status']}, {quoted(error['message_key'])}, {bare}}}"

    def write(self) -> str:
        shapes = [self.shape(name, shape) for name, shape in self.model["shapes"].items()]
        operations = [self.operation(operation) for operation in self.model["operations"]]
        errors = [self.error(name, error) for name, error in sorted(self.model["errors"].items())]
        body = list(self.lines)
        for type_name, name, items in (
            ("Shape", "kShapes", shapes),
            ("Operation", "kOperations", operations),
            ("ErrorType", "kErrors", errors),
        ):
            body.append(f"constexpr {type_name} {name}[] = {{")
            body.append(",\n".join(items))
            body.append("};")
        for key, name in (("accepted", "kAccepted"), ("accepted_newer", "kNewer"), ("deprecated", "kDeprecated")):
            items = ", ".join(quoted(value) for value in self.model["runtimes"][key])
            body.append(f"constexpr std::string_view {name}[] = {{{items}}};")
        return HEAD + "\n".join(body) + TAIL


HEAD = """// Made by tools/lambda_model.py; do not edit.
#include <algorithm>

#include "api/lambda/model.h"

namespace mayfly::api::lambda {
namespace {

"""
TAIL = """

}  // namespace

std::span<const Operation> operations() { return kOperations; }
const Shape& shape(std::uint16_t index) { return kShapes[index]; }
const ErrorType* find_error_type(std::string_view name) {
  const auto before = [](const ErrorType& error, std::string_view wanted) { return error.name < wanted; };
  const auto* found = std::lower_bound(std::begin(kErrors), std::end(kErrors), name, before);
  return found != std::end(kErrors) && found->name == name ? found : nullptr;
}
std::span<const std::string_view> runtimes_accepted() { return kAccepted; }
std::span<const std::string_view> runtimes_accepted_newer() { return kNewer; }
std::span<const std::string_view> runtimes_deprecated() { return kDeprecated; }

}  // namespace mayfly::api::lambda
"""


def main() -> None:
    out, source = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        model = json.load(file)
    text = Writer(model).write()
    with open(out, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
